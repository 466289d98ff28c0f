//! Tests against references that we did not write, and of the program as its users meet it. One binary, so that libtorch is
//! linked once.

mod parity;
mod configs;
mod statistics;
mod store;
mod prompts;
mod tokens;
mod house;
mod docs;
mod lens;
mod recognition;
mod kept;
mod probes;
mod pairs;
mod endogenous;
mod weights;
mod found;
mod verify;
mod adapters;
mod merged;
mod integrity;
mod refusals;
mod cli;
mod pages;
mod browser;
mod hub_server;
mod hub;
mod compare;
mod void;
mod personas;
mod compare_contexts;
mod interventions;
mod causal;
mod organisms;
mod jobs;
mod baseline;
