//! Cards, through a library of its own that is opened at run time: with no driver or no library there is nothing but a typed
//! error, and everything else goes on as if cards did not exist. Loader and runner threads.

pub mod abi;
mod codec;
mod library;
mod model;
mod step;

pub use codec::{CudaCodec, CudaCodecStream, MOST_APART};
pub use library::{Card, Library};
pub use model::{CudaModel, choose};
pub use step::CudaBackend;
