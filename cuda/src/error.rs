//! What can go wrong on a card, in words for a musician: the thing and the remedy. Any thread.

use crate::abi::status;

/// The oldest driver that loads what the library carries, as the driver counts.
pub const OLDEST_DRIVER: u32 = 13_000;

#[derive(Debug, thiserror::Error)]
pub enum CudaError {
    #[error("there is no NVIDIA driver on this machine; without one the model plays on the CPU")]
    NoDriver,
    #[error(
        "the NVIDIA driver speaks CUDA {}.{}, and the library needs {}.{}: update the driver to 580 or newer, or play on \
         the CPU",
        found / 1000, found % 1000 / 10, OLDEST_DRIVER / 1000, OLDEST_DRIVER % 1000 / 10
    )]
    OldDriver { found: u32 },
    #[error("GPU {asked} is not there: the driver has {found}; choose another one")]
    NoDevice { asked: u32, found: u32 },
    #[error("{name} has compute capability {major}.{minor}, and 8.0 is the least that is supported; play on the CPU")]
    OldDevice { name: String, major: u32, minor: u32 },
    #[cfg_attr(feature = "kernels", expect(dead_code, reason = "this build has them"))]
    #[error("this library was built without kernels: build it with `cargo xtask bundle --cuda`")]
    NoKernels,
    #[error(
        "{needed} MB are needed on the GPU and {free} MB are free: close what else uses it, choose a smaller model, or \
         play on the CPU"
    )]
    Memory { needed: u64, free: u64 },
    #[error("the GPU no longer answers ({call}: {name}); the model goes on on the CPU")]
    Lost { call: &'static str, name: String },
    #[error("a model of this shape does not run on a GPU ({what}); play it on the CPU")]
    Shape { what: String },
    #[error("the CUDA library was called wrongly ({what}): use the one that belongs to this plugin")]
    Argument { what: String },
}

impl CudaError {
    /// The number that crosses to the engine.
    pub fn status(&self) -> i32 {
        match self {
            Self::NoDriver => status::NO_DRIVER,
            Self::OldDriver { .. } => status::OLD_DRIVER,
            Self::NoDevice { .. } | Self::OldDevice { .. } => status::NO_DEVICE,
            Self::NoKernels => status::NO_KERNELS,
            Self::Memory { .. } => status::MEMORY,
            Self::Lost { .. } => status::LOST,
            Self::Shape { .. } => status::SHAPE,
            Self::Argument { .. } => status::ARGUMENT,
        }
    }
}
