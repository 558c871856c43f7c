//! What the engine and the CUDA library say to each other: plain C structures. The one definition, compiled into both
//! (cuda/src/lib.rs takes this file by its path), so that neither links the other. Any thread.

use std::ffi::c_void;

/// Raised with every change below. A library of another version is not used.
pub const VERSION: u32 = 2;

/// Most rows of a step: two guidance rows each for the piece, the ending piece and two rebuilt positions.
pub const MOST_ROWS: usize = 8;
/// Most codebooks.
pub const MOST_CODEBOOKS: usize = 16;
/// Most pushes on a row.
pub const MOST_PUSHES: usize = 6;
/// Most pairs of rows that codes are drawn from.
pub const MOST_DRAWS: usize = 2;
/// Most block outputs that are looked at.
pub const MOST_TAPS: usize = 2;

/// How a call ended.
pub mod status {
    pub const OK: i32 = 0;
    /// There is no driver on this machine.
    pub const NO_DRIVER: i32 = 1;
    /// The driver cannot load what the library carries.
    pub const OLD_DRIVER: i32 = 2;
    /// The driver has no such card, or one that is too old.
    pub const NO_DEVICE: i32 = 3;
    /// The library was built without kernels.
    pub const NO_KERNELS: i32 = 4;
    /// The card's memory does not suffice.
    pub const MEMORY: i32 = 5;
    /// The card no longer answers.
    pub const LOST: i32 = 6;
    /// A model of a shape that the kernels do not know.
    pub const SHAPE: i32 = 7;
    /// The caller's mistake.
    pub const ARGUMENT: i32 = 8;
}

/// Why a call failed, for people: UTF-8, cut to fit.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Message {
    pub length: u32,
    pub text: [u8; 508],
}

/// One card.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct DeviceFacts {
    /// UTF-8, ended by a 0.
    pub name: [u8; 128],
    /// Bytes.
    pub free: u64,
    pub total: u64,
    /// Compute capability.
    pub major: u32,
    pub minor: u32,
    pub multiprocessors: u32,
    /// As the driver counts: 13000 is 13.0.
    pub driver: u32,
}

/// Shape of a language model.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Shape {
    pub hidden: u32,
    pub heads: u32,
    pub feed: u32,
    pub vocab: u32,
    pub codebooks: u32,
    pub blocks: u32,
    pub text_width: u32,
    /// 0 GELU, 1 GELU by tanh, 2 ReLU, 3 SiLU.
    pub activation: u32,
    /// Positions that there are embeddings for.
    pub positions: u32,
    /// 1 when text states are projected to the hidden width.
    pub projected: u32,
}

/// A tensor of the model. Row-major; `[outputs][inputs]`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tensor {
    /// `[codebook][vocab + 1][hidden]`.
    Embeddings = 0,
    /// `[positions][hidden]`.
    Positions = 1,
    SelfGain = 2,
    SelfOffset = 3,
    /// Query, key, value.
    SelfIn = 4,
    SelfOut = 5,
    CrossGain = 6,
    CrossOffset = 7,
    CrossQuery = 8,
    /// Key, value.
    CrossIn = 9,
    CrossOut = 10,
    FeedGain = 11,
    FeedOffset = 12,
    FeedIn = 13,
    FeedOut = 14,
    FinalGain = 15,
    FinalOffset = 16,
    /// `[codebooks vocab][hidden]`.
    Heads = 17,
    /// `[hidden][text_width]`.
    TextProjection = 18,
    TextOffset = 19,
}

impl Tensor {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 20] = [
        Self::Embeddings,
        Self::Positions,
        Self::SelfGain,
        Self::SelfOffset,
        Self::SelfIn,
        Self::SelfOut,
        Self::CrossGain,
        Self::CrossOffset,
        Self::CrossQuery,
        Self::CrossIn,
        Self::CrossOut,
        Self::FeedGain,
        Self::FeedOffset,
        Self::FeedIn,
        Self::FeedOut,
        Self::FinalGain,
        Self::FinalOffset,
        Self::Heads,
        Self::TextProjection,
        Self::TextOffset,
    ];
}

/// f32 in host memory.
pub const F32: u32 = 0;
/// The bits that the card keeps, wherever they lie: bf16 for weights, f32 for the rest.
pub const AS_KEPT: u32 = 1;

/// What a player of a model needs.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Settings {
    /// Caches of keys and values.
    pub caches: u32,
    /// Positions of each.
    pub capacity: u32,
    /// Slots of injected tables.
    pub injections: u32,
    /// 1: a kernel may begin while the one before it ends, where the card can.
    pub overlap: u32,
    /// Bytes of its weights that a thread block asks for before its input is ready.
    pub prefetch: u32,
    /// 1: a layer's first weights, and keys and values that have long been there, are read into registers before its input is ready.
    pub early: u32,
}

/// A push of a class, by the number that the library gave its tables.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct PushRow {
    pub held: u32,
    pub reach: f32,
    pub share: f32,
}

/// One position of one guidance row.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct StepRow {
    pub cache: u32,
    pub position: u32,
    /// A prompt that the player was given; 0 is the unconditional row.
    pub prompt: u32,
    /// Slot of the injected table; -1 is none.
    pub injection: i32,
    pub pushes: u32,
    pub push: [PushRow; MOST_PUSHES],
    pub codes: [u32; MOST_CODEBOOKS],
}

/// How codes are drawn from rows 2 i and 2 i + 1.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Draw {
    pub temperature: f32,
    pub guidance: f32,
    pub top_k: u32,
    pub seed: u32,
    pub frame: u32,
    pub live: u32,
}

/// A block's output to be looked at.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Tap {
    /// -1 is none.
    pub block: i32,
    pub row: i32,
}

/// One step.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Step {
    pub rows: u32,
    pub row: [StepRow; MOST_ROWS],
    pub draws: [Draw; MOST_DRAWS],
    pub taps: [Tap; MOST_TAPS],
}

impl Default for Step {
    fn default() -> Self {
        Self {
            rows: 0,
            row: [StepRow::default(); MOST_ROWS],
            draws: [Draw::default(); MOST_DRAWS],
            taps: [Tap { block: -1, row: 0 }; MOST_TAPS],
        }
    }
}

/// What a step gave.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drawn {
    pub codes: [[u32; MOST_CODEBOOKS]; MOST_DRAWS],
    /// 1 when a logit that was drawn from is not finite.
    pub not_finite: u32,
    pub unused: [u32; 3],
}

/// What `tiller_cuda_read` reads of the last step.
pub mod reading {
    /// `[codebooks * vocab]` of a row.
    pub const LOGITS: u32 = 0;
    /// `[hidden]` of a tap.
    pub const TAP: u32 = 1;
}

/// What an operation of a codec's decoder does.
pub mod operation {
    /// Sums a frame's code vectors: `inputs` codebooks of `kernel` codes, `outputs` wide. Its weight is
    /// `[codebook][code][outputs]`. Only the first one is of this kind.
    pub const LATENT: u32 = 0;
    /// A convolution: `[outputs][kernel][inputs]`.
    pub const CONVOLUTION: u32 = 1;
    /// A transposed one, which makes `phases` rows of each: `[phases][outputs][kernel][inputs]`, the oldest row first.
    pub const TRANSPOSED: u32 = 2;
    /// A layer of an LSTM as wide as its source: `[gate][outputs][input, last output][inputs]`, gates in PyTorch's order.
    pub const LSTM: u32 = 3;
}

/// One operation of a codec's decoder. Its output are rows of `outputs` numbers, padded with zeros to a multiple of 4.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Operation {
    /// One of [`operation`].
    pub kind: u32,
    /// The operation whose output it reads.
    pub source: u32,
    /// The operation whose output is added row for row; -1 is none.
    pub skip: i32,
    /// Width of the source, padded to a multiple of 4.
    pub inputs: u32,
    pub outputs: u32,
    pub kernel: u32,
    pub dilation: u32,
    pub phases: u32,
    /// Rows before the first one, and behind the last one.
    pub left: u32,
    pub right: u32,
    /// Rows that are cut off at the start.
    pub trim: u32,
    /// 1: what lies beyond the ends is reflected; 0: it is zero.
    pub reflect: u32,
    /// 1: the source passes an ELU.
    pub elu: u32,
}

/// A model, player, codec or codec stream of the library.
pub type Object = *mut c_void;
