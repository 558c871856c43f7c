//! Where candle computes, and how exactly. The lines behind the feature `metal` are all that is only ever compiled for macOS; they
//! were type-checked for it and read against candle 0.11.1's source, and have not run.

use std::fmt;

use candle_core::{DType, Device, Result, Shape, Tensor};
use half::f16;

/// How weights, keys and values are kept, and products computed; norms and the residual stream are f32 in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Numbers {
    F32,
    /// What MusicGen was trained and published for. Apple's GPUs all have it; bf16 only the newest.
    F16,
}

/// A device of candle's.
#[derive(Clone, Debug)]
pub struct CandleDevice {
    pub(super) device: Device,
    pub(super) numbers: Numbers,
    name: String,
    /// Bytes of memory that are free, and all; of a processor nobody asks.
    memory: Option<[u64; 2]>,
}

/// Candle's CPU device. For tests: never in a host.
pub fn processor(numbers: Numbers) -> CandleDevice {
    CandleDevice { device: Device::Cpu, numbers, name: "candle on the CPU".to_owned(), memory: None }
}

/// The first Metal device: the only one of an Apple machine. Candle knows what its architecture is called ("applegpu_g13s"),
/// and how much memory the system recommends to use. It asks for the former at every product: macOS 14 or newer.
///
/// # Errors
/// There is none.
#[cfg(feature = "metal")]
pub fn metal() -> std::result::Result<CandleDevice, super::BackendError> {
    use crate::backend::cuda::abi::status;
    // Without a device candle 0.11.1 takes the first one of an empty list.
    let made = std::panic::catch_unwind(|| Device::new_metal(0));
    let made = made.unwrap_or_else(|_| Err(candle_core::Error::Msg("there is none".to_owned())));
    let describe = |device: Device| {
        let metal = device.as_metal_device()?;
        let all = metal.recommended_max_working_set_size() as u64;
        let free = all.saturating_sub(metal.current_allocated_size() as u64);
        let name = format!("Metal GPU {}", metal.architecture_name());
        Ok(CandleDevice { device, numbers: Numbers::F16, name, memory: Some([free, all]) })
    };
    made.and_then(describe).map_err(|error| super::failed(status::NO_DEVICE, "no Metal device", &error))
}

impl CandleDevice {
    /// For people.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn dtype(&self) -> DType {
        match self.numbers {
            Numbers::F32 => DType::F32,
            Numbers::F16 => DType::F16,
        }
    }

    /// Values as they are multiplied. Rounded here, on the calling thread: on the device a tensor that was computed takes a
    /// buffer of the next power of two.
    pub(super) fn rounded(&self, values: Vec<f32>, shape: impl Into<Shape>) -> Result<Tensor> {
        match self.numbers {
            Numbers::F32 => self.exact(values, shape),
            Numbers::F16 => {
                let halves: Vec<f16> = values.into_iter().map(f16::from_f32).collect();
                Tensor::from_vec(halves, shape.into(), &self.device)
            }
        }
    }

    /// Values of the residual stream.
    pub(super) fn exact(&self, values: Vec<f32>, shape: impl Into<Shape>) -> Result<Tensor> {
        Tensor::from_vec(values, shape.into(), &self.device)
    }
}

impl fmt::Display for CandleDevice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some([free, all]) = self.memory else { return formatter.write_str(&self.name) };
        let gigabytes = |bytes: u64| bytes as f64 / 1e9;
        write!(formatter, "gpu 0: {}, {:.1} of {:.1} GB free", self.name, gigabytes(free), gigabytes(all))
    }
}
