//! The machine of one workspace: everything the agent decides, with its effects as values.
//!
//! Contract (see also docs/architecture.md): the shell calls [`Workspace::handle`] with one [`Input`], then drains
//! [`Workspace::poll_output`] to `None`, then sleeps until [`Workspace::poll_timeout`] or the next input. `Persist`
//! batches are applied to the store before the next `handle`, in order, and answered by [`Input::Persisted`] once they
//! are durable; an output that must not leave before something is durable is simply not given out before.

pub mod command;
pub mod input;
pub mod output;
