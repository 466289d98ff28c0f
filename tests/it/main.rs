//! Tests against references that we did not write, and of the program as its users meet it. One binary, so that libtorch is
//! linked once.

mod parity;
mod configs;
mod statistics;
mod store;
mod prompts;
mod house;
mod probes;
mod pairs;
mod adapters;
mod cli;
mod hub_server;
mod hub;
mod compare;
mod personas;
mod organisms;
