//! Tests of the program as a user, a player or another node meets it: the binary, its files and its sockets.

mod cli;
mod hostile_input;
mod node_paths;
mod path_node;
mod player_beacon;
mod player_listener;
mod receivers;
mod recording;
mod udp_relay;
mod viewer_groups;
