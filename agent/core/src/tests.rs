//! Properties of the sealing side as a whole, and its golden vectors.

mod acceptance;
mod attacks;
mod evaluation;
mod flow;
mod hostile;
mod model;
mod script;
mod vectors;
mod world;
