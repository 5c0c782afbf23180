//! Properties of the sealing side as a whole, and its golden vectors.

mod evaluation;
mod flow;
mod hostile;
mod vectors;
mod world;
