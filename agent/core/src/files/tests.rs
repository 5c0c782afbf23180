//! Whole scenarios: replicas with stores and folders in memory, and a network that delivers in any order.

mod convergence;
mod crashes;
mod damage;
mod elsewhere;
mod fallen;
mod merging;
mod places;
mod safety;
mod voided;
mod world;
