//! Properties of the sealing side as a whole, and its golden vectors.

mod evaluation;
mod flow;
mod hostile;
mod speed;
mod vectors;
mod world;
