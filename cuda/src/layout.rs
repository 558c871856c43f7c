//! Structures that kernels read: the other half of kernels/layout.h, where each field is explained. Sizes are checked in both.

use crate::abi::{Draw, MOST_CODEBOOKS, MOST_DRAWS, MOST_PUSHES, MOST_ROWS, MOST_TAPS, Tap};

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Row {
    pub text: u64,
    pub tokens: i32,
    pub cache: i32,
    pub position: i32,
    pub injection: i32,
    pub pushes: i32,
    pub live: i32,
    pub codes: [u32; MOST_CODEBOOKS],
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Push {
    pub directions: u64,
    pub levels: u64,
    pub limits: u64,
    pub reach: f32,
    pub share: f32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Step {
    pub rows: [Row; MOST_ROWS],
    pub pushes: [[Push; MOST_PUSHES]; MOST_ROWS],
    pub draws: [Draw; MOST_DRAWS],
    pub taps: [Tap; MOST_TAPS],
}

impl Default for Step {
    fn default() -> Self {
        Self {
            rows: [Row { injection: -1, ..Row::default() }; MOST_ROWS],
            pushes: [[Push::default(); MOST_PUSHES]; MOST_ROWS],
            draws: [Draw::default(); MOST_DRAWS],
            taps: [Tap { block: -1, row: 0 }; MOST_TAPS],
        }
    }
}

const _: () = assert!(size_of::<Row>() == 96);
const _: () = assert!(size_of::<Push>() == 32);
const _: () = assert!(size_of::<Step>() == 96 * 8 + 32 * 48 + 24 * 2 + 8 * 2);
const _: () = assert!(size_of::<crate::abi::Drawn>() == 144);

/// Where a layer's outputs go.
pub mod into {
    pub const STORE: i32 = 0;
    pub const ACTIVATE: i32 = 1;
    pub const ADD: i32 = 2;
    pub const CACHE: i32 = 3;
    pub const TEXT: i32 = 4;
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Linear {
    pub weight: u64,
    pub input: u64,
    pub gain: u64,
    pub offset: u64,
    pub bias: u64,
    pub output: u64,
    pub step: u64,
    pub keys: u64,
    pub cache_stride: i64,
    pub value_stride: i64,
    pub injections: u64,
    pub slot_stride: i64,
    pub inputs: i32,
    pub outputs: i32,
    pub chunk: i32,
    pub into: i32,
    pub activation: i32,
    pub hidden: i32,
    pub size: i32,
    pub capacity: i32,
    pub first: i32,
    pub rows: i32,
    pub prefetch: i32,
    pub early: i32,
    pub unused: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Attend {
    pub query: u64,
    pub output: u64,
    pub step: u64,
    pub keys: u64,
    pub cache_stride: i64,
    pub value_stride: i64,
    pub text_offset: i64,
    pub partial: u64,
    pub tickets: u64,
    pub query_stride: i32,
    pub hidden: i32,
    pub heads: i32,
    pub capacity: i32,
    pub chunks: i32,
    pub factor: f32,
    pub early: i32,
    pub unused: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Embed {
    pub tables: u64,
    pub positions: u64,
    pub hidden: u64,
    pub drawn: u64,
    pub step: u64,
    pub width: i32,
    pub codebooks: i32,
    pub entries: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Inject {
    pub hidden: u64,
    pub taps: u64,
    pub step: u64,
    pub width: i32,
    pub block: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Sample {
    pub logits: u64,
    pub step: u64,
    pub drawn: u64,
    pub codebooks: i32,
    pub vocab: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Probe {
    pub memory: u64,
    pub sink: u64,
    pub words: i64,
}

/// Most operations of a codec.
pub const MOST_OPERATIONS: usize = 64;

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Span {
    pub first: i64,
    pub until: i64,
    pub seen: i64,
    pub unused: i64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct CodecPlan {
    pub work: [Span; MOST_OPERATIONS],
    pub codes: [u32; MOST_CODEBOOKS],
}

impl Default for CodecPlan {
    fn default() -> Self {
        Self { work: [Span::default(); MOST_OPERATIONS], codes: [0; MOST_CODEBOOKS] }
    }
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Latent {
    pub tables: u64,
    pub output: u64,
    pub work: u64,
    pub codes: u64,
    pub mask: i64,
    pub codebooks: i32,
    pub entries: i32,
    pub width: i32,
    pub stride: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Window {
    pub weight: u64,
    pub bias: u64,
    pub source: u64,
    pub skip: u64,
    pub output: u64,
    pub work: u64,
    pub source_mask: i64,
    pub skip_mask: i64,
    pub output_mask: i64,
    pub inputs: i32,
    pub outputs: i32,
    pub stride: i32,
    pub kernel: i32,
    pub dilation: i32,
    pub phases: i32,
    pub left: i32,
    pub right: i32,
    pub trim: i32,
    pub reflect: i32,
    pub elu: i32,
    pub prefetch: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Recur {
    pub weight: u64,
    pub bias: u64,
    pub source: u64,
    pub skip: u64,
    pub output: u64,
    pub state: u64,
    pub work: u64,
    pub source_mask: i64,
    pub skip_mask: i64,
    pub output_mask: i64,
    pub index: i32,
    pub hidden: i32,
    pub prefetch: i32,
    pub unused: i32,
}

const _: () = assert!(size_of::<Linear>() == 152);
const _: () = assert!(size_of::<Attend>() == 104);
const _: () = assert!(size_of::<Embed>() == 56);
const _: () = assert!(size_of::<Inject>() == 32);
const _: () = assert!(size_of::<Sample>() == 32);
const _: () = assert!(size_of::<Probe>() == 24);
const _: () = assert!(size_of::<CodecPlan>() == 32 * 64 + 64);
const _: () = assert!(size_of::<Latent>() == 56);
const _: () = assert!(size_of::<Window>() == 120);
const _: () = assert!(size_of::<Recur>() == 96);
