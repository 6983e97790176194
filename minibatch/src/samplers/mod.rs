//! The samplers that need no ring, one file each. What they all promise is tried by `tests/samplers_contract.rs`.
//!
//! | sampler | an epoch | probability of a row |
//! |---|---|---|
//! | [`Sequential`] | each row once, in order | 1/N |
//! | [`Shuffled`] | each row once, in random order | 1/N |
//! | [`Stratified`] | each row once, each batch with the classes' shares | 1/N |
//! | [`LengthBucketed`] | each row once, rows of similar length together | 1/N |
//! | [`WeightedWithoutReplacement`] | as many different rows as it is told | by its weight |
//! | [`Weighted`] | none: independent draws | its share of the weight |
//! | [`ClassBalanced`] | none: classes in turn | 1/(C·n) in a class of n rows |
//! | [`Uniform`] | none: independent draws | 1/N |
//! | [`WithoutReplacement`] | none: independent batches of different rows | 1/N |

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
