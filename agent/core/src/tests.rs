//! Properties of the sealing side as a whole, and its golden vectors.

mod acceptance;
mod attacks;
mod enrol;
mod evaluation;
mod flow;
mod hostile;
mod model;
mod script;
mod search;
mod vectors;
mod world;
