//! The samplers that need no ring, one file each. What they all promise is tried by `tests/samplers_contract.rs`.

mod class_balanced;
mod classes;
mod course;
mod error;
mod fair;
mod length_bucketed;
mod permutation;
mod sequential;
mod shuffled;
mod stratified;
mod uniform;
mod weighted;
mod weighted_without_replacement;
mod without_replacement;

pub use class_balanced::ClassBalanced;
pub use error::SamplerError;
pub use length_bucketed::LengthBucketed;
pub use permutation::Permutation;
pub use sequential::Sequential;
pub use shuffled::Shuffled;
pub use stratified::Stratified;
pub use uniform::Uniform;
pub use weighted::Weighted;
pub use weighted_without_replacement::WeightedWithoutReplacement;
pub use without_replacement::WithoutReplacement;
