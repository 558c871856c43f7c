//! What `cargo xtask bench` measures, one module each: the machine's read bandwidth, decoder steps, codec, the whole
//! stream, growth, the plugin and peers. All of it runs on the program's main thread, the bandwidth probe and load apart.

pub mod bandwidth;
pub mod byte_count;
pub mod codec;
pub mod growth;
pub mod handover;
pub mod load;
pub mod machine;
pub mod peer;
pub mod plugin;
pub mod progress;
pub mod random_checkpoint;
pub mod report;
pub mod shape;
pub mod spread;
pub mod steps;
pub mod stolen;
pub mod stream;
pub mod subject;
pub mod table;
pub mod tensors;
