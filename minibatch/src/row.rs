//! A struct of the user's own as a row: fields with names and types instead of byte slices.

use crate::{Batch, BatchError, Dtype, Schema};

/// A struct that is a row of a schema, made by [`row!`](crate::row).
pub trait Row: Sized {
    /// A batch of such rows, column by column: a struct with a slice for each field. See [`row!`](crate::row).
    type Columns<'a>;

    /// What a row holds: the fields of the struct, in their order. Made once; cloning it is cheap, and so is comparing a
    /// clone with it.
    fn schema() -> &'static Schema;

    /// Shows the row to `take` as a byte slice for each field, without copying it.
    fn with_columns<R>(&self, take: impl FnOnce(&[&[u8]]) -> R) -> R;

    /// The columns of a batch that have the names of the struct's fields. The batch may have others beside them. O(fields).
    ///
    /// # Errors
    /// [`BatchError::NoColumn`], [`BatchError::Dtype`] and [`BatchError::Shape`].
    fn columns(batch: &Batch) -> Result<Self::Columns<'_>, BatchError>;

    /// Row `row` of a batch, copied out of its columns.
    ///
    /// # Panics
    /// When there is no such row.
    fn get(columns: &Self::Columns<'_>, row: usize) -> Self;
}

/// A type that a field of a [`Row`] may have: a number, `bool`, or an array of such a type; `[[u8; 84]; 84]` has the shape
/// `[84, 84]`.
pub trait RowField: Sized + Copy + 'static {
    /// The number (or `bool`) that the field is made of.
    type Scalar: bytemuck::NoUninit;
    /// The same as it lies in a column.
    type StoredScalar: bytemuck::Pod;
    /// The field as it lies in a column: itself, with `u8` (0 or 1) where it has `bool`.
    type Stored: Copy + 'static;

    /// The element type of its column.
    const DTYPE: Dtype;
    /// Its bytes. No array of a field may be empty; that does not compile.
    const BYTES: usize;

    /// Appends its shape.
    fn shape(shape: &mut Vec<usize>);

    /// Whether this is its shape.
    fn has_shape(shape: &[usize]) -> bool;

    /// All numbers of several such fields, one after the other.
    fn scalars(fields: &[Self]) -> &[Self::Scalar];

    /// The fields that a column's numbers make; the reverse of [`scalars`](Self::scalars).
    fn fields(scalars: &[Self::StoredScalar]) -> &[Self::Stored];

    /// What is stored, as it was.
    fn load(stored: Self::Stored) -> Self;

    /// Its bytes in native byte order, row-major.
    fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(Self::scalars(std::slice::from_ref(self)))
    }
}

macro_rules! scalars {
    ($($scalar:ty => $dtype:ident as $stored:ty, $load:expr;)*) => {$(
        impl RowField for $scalar {
            type Scalar = $scalar;
            type StoredScalar = $stored;
            type Stored = $stored;
            const DTYPE: Dtype = Dtype::$dtype;
            const BYTES: usize = size_of::<$scalar>();

            fn shape(_: &mut Vec<usize>) {}

            fn has_shape(shape: &[usize]) -> bool {
                shape.is_empty()
            }

            fn scalars(fields: &[Self]) -> &[Self] {
                fields
            }

            fn fields(scalars: &[$stored]) -> &[$stored] {
                scalars
            }

            fn load(stored: $stored) -> Self {
                $load(stored)
            }
        }
    )*};
}

scalars! {
    f32 => F32 as f32, std::convert::identity;
    f64 => F64 as f64, std::convert::identity;
    i32 => I32 as i32, std::convert::identity;
    i64 => I64 as i64, std::convert::identity;
    u8 => U8 as u8, std::convert::identity;
    bool => Bool as u8, |stored| stored != 0;
    half::f16 => F16 as half::f16, std::convert::identity;
    half::bf16 => Bf16 as half::bf16, std::convert::identity;
}

impl<T: RowField, const N: usize> RowField for [T; N] {
    type Scalar = T::Scalar;
    type StoredScalar = T::StoredScalar;
    type Stored = [T::Stored; N];
    const DTYPE: Dtype = T::DTYPE;
    const BYTES: usize = {
        assert!(N > 0, "an array in a row has at least one element");
        T::BYTES * N
    };

    fn shape(shape: &mut Vec<usize>) {
        shape.push(N);
        T::shape(shape);
    }

    fn has_shape(shape: &[usize]) -> bool {
        shape.split_first().is_some_and(|(first, rest)| *first == N && T::has_shape(rest))
    }

    fn scalars(fields: &[Self]) -> &[Self::Scalar] {
        T::scalars(fields.as_flattened())
    }

    fn fields(scalars: &[Self::StoredScalar]) -> &[Self::Stored] {
        T::fields(scalars).as_chunks().0
    }

    fn load(stored: Self::Stored) -> Self {
        stored.map(T::load)
    }
}

impl Batch {
    /// The column called `name` as a slice with a `T` for each row, an array where the field has a shape: `f32`, `[f32; 4]`,
    /// `[[u8; 84]; 84]`. For `bool` it is `u8`, 0 or 1. [`typed`](Self::typed) gives the elements without the shape.
    ///
    /// ```
    /// use rl_minibatch::{Batch, Dtype, Schema};
    /// let schema = Schema::transition((Dtype::F32, &[4]), (Dtype::I64, &[]))?;
    /// let batch = Batch::new(&schema, 32);
    /// let obs: &[[f32; 4]] = batch.rows_of::<[f32; 4]>("obs")?;
    /// assert_eq!(obs.len(), 32);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`BatchError::NoColumn`], [`BatchError::Dtype`] and [`BatchError::Shape`].
    pub fn rows_of<T: RowField>(&self, name: &str) -> Result<&[T::Stored], BatchError> {
        let no_column = || BatchError::NoColumn { name: name.to_string() };
        let position = self.schema().position(name).ok_or_else(no_column)?;
        let field = &self.schema().fields()[position];
        if field.dtype != T::DTYPE {
            return Err(BatchError::Dtype { column: name.to_string(), stored: field.dtype, asked: T::DTYPE });
        }
        if !T::has_shape(&field.shape) {
            let (stored, mut asked) = (field.shape.clone(), Vec::new());
            T::shape(&mut asked);
            return Err(BatchError::Shape { column: name.to_string(), stored, asked });
        }
        Ok(T::fields(bytemuck::cast_slice(self.column(position))))
    }
}

/// Declares a struct that is a row: its fields are the schema's, in their order.
///
/// Fields are `f32`, `f64`, `i32`, `i64`, `u8`, `bool`, `half::f16`, `half::bf16`, and arrays of these, nested for a shape
/// of several dimensions. Attributes and visibilities are kept; the struct itself is left as it is, so derive what you
/// like. It implements [`Row`]:
///
/// * `Step::schema()` is the schema, to build a buffer with;
/// * `writer.push_row(&step)` of `rl-replay` inserts one, without a slice for each field;
/// * `Step::columns(&batch)?` reads a batch back, `columns.obs` being a `&[[f32; 4]]` with one entry a row. Columns of
///   `bool` come as `u8`, 0 or 1;
/// * `Step::get(&columns, row)` is one of its rows as a struct again.
///
/// ```
/// use rl_minibatch::{Batch, Dtype, Row, row};
///
/// row! {
///     /// One step of the cart and its pole.
///     #[derive(Clone, Copy, Debug, PartialEq)]
///     pub struct Step {
///         /// Position, speed, angle, angular speed.
///         pub obs: [f32; 4],
///         pub action: i64,
///         pub reward: f32,
///         pub terminated: bool,
///         pub frames: [[u8; 3]; 2],
///     }
/// }
///
/// let fields = Step::schema().fields();
/// assert_eq!((fields[0].name.as_str(), fields[0].dtype), ("obs", Dtype::F32));
/// assert_eq!((&fields[3].shape[..], &fields[4].shape[..]), (&[][..], &[2, 3][..]));
///
/// let mut batch = Batch::new(Step::schema(), 2);
/// batch.typed_mut::<f32>("obs")?[4..].copy_from_slice(&[0.1, 0.2, 0.3, 0.4]);
/// batch.column_mut(3)[1] = 1;
/// let columns = Step::columns(&batch)?;
/// assert_eq!(columns.obs[1], [0.1, 0.2, 0.3, 0.4]);
/// let step = Step::get(&columns, 1);
/// assert!(step.terminated && step.obs == columns.obs[1]);
/// # Ok::<(), rl_minibatch::BatchError>(())
/// ```
#[macro_export]
macro_rules! row {
    (
        $(#[$of_struct:meta])*
        $visibility:vis struct $name:ident {
            $($(#[$of_field:meta])* $field_visibility:vis $field:ident : $type:ty),+ $(,)?
        }
    ) => {
        $(#[$of_struct])*
        $visibility struct $name {
            $($(#[$of_field])* $field_visibility $field: $type,)+
        }

        const _: () = {
            /// A batch of rows, column by column.
            #[derive(Clone, Copy)]
            #[allow(dead_code, missing_docs)]
            $visibility struct Columns<'a> {
                $($field_visibility $field: &'a [<$type as $crate::RowField>::Stored],)+
            }

            impl $crate::Row for $name {
                type Columns<'a> = Columns<'a>;

                fn schema() -> &'static $crate::Schema {
                    static SCHEMA: ::std::sync::LazyLock<$crate::Schema> = ::std::sync::LazyLock::new(|| {
                        let fields = ::std::vec![$({
                            // Looked at so that an empty array does not compile.
                            const { assert!(<$type as $crate::RowField>::BYTES > 0) };
                            let mut shape = ::std::vec::Vec::new();
                            <$type as $crate::RowField>::shape(&mut shape);
                            let dtype = <$type as $crate::RowField>::DTYPE;
                            $crate::Field::new(::std::stringify!($field).trim_start_matches("r#"), dtype, shape)
                        },)+];
                        $crate::Schema::new(fields).expect("a struct has fields with names of their own")
                    });
                    &SCHEMA
                }

                fn with_columns<R>(&self, take: impl FnOnce(&[&[u8]]) -> R) -> R {
                    take(&[$($crate::RowField::bytes(&self.$field),)+])
                }

                fn columns(
                    batch: &$crate::Batch,
                ) -> ::std::result::Result<Columns<'_>, $crate::BatchError> {
                    ::std::result::Result::Ok(Columns {
                        $($field: batch
                            .rows_of::<$type>(::std::stringify!($field).trim_start_matches("r#"))?,)+
                    })
                }

                fn get(columns: &Columns<'_>, row: usize) -> Self {
                    Self { $($field: <$type as $crate::RowField>::load(columns.$field[row]),)+ }
                }
            }
        };
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Field;

    row! {
        #[derive(Clone, Copy, Debug, PartialEq)]
        struct Everything {
            a: f32,
            b: [f64; 2],
            c: i32,
            d: [[i64; 2]; 3],
            e: [[[u8; 2]; 1]; 4],
            f: bool,
            flags: [[bool; 2]; 2],
            g: half::f16,
            h: [half::bf16; 5],
            r#type: u8,
        }
    }

    fn everything(i: u8) -> Everything {
        let x = f32::from(i);
        Everything {
            a: x,
            b: [x.into(), -1.5],
            c: -i32::from(i),
            d: [[1, 2], [3, 4], [i.into(), i64::MIN]],
            e: std::array::from_fn(|k| [[k as u8, i]]),
            f: i.is_multiple_of(2),
            flags: [[true, i.is_multiple_of(3)], [false, true]],
            g: half::f16::from_f32(x),
            h: [half::bf16::from_f32(x + 1.0); 5],
            r#type: i,
        }
    }

    #[test]
    fn the_schema_is_what_was_declared() {
        let expected = vec![
            Field::new("a", Dtype::F32, []),
            Field::new("b", Dtype::F64, [2]),
            Field::new("c", Dtype::I32, []),
            Field::new("d", Dtype::I64, [3, 2]),
            Field::new("e", Dtype::U8, [4, 1, 2]),
            Field::new("f", Dtype::Bool, []),
            Field::new("flags", Dtype::Bool, [2, 2]),
            Field::new("g", Dtype::F16, []),
            Field::new("h", Dtype::Bf16, [5]),
            Field::new("type", Dtype::U8, []),
        ];
        assert_eq!(Everything::schema().fields(), expected);
    }

    #[test]
    fn what_goes_in_comes_out() {
        let rows: Vec<Everything> = (0..9).map(everything).collect();
        let mut batch = Batch::new(Everything::schema(), rows.len());
        for (i, row) in rows.iter().enumerate() {
            row.with_columns(|columns| {
                let mut view = batch.view_mut();
                assert_eq!(columns.len(), 10);
                for (position, bytes) in columns.iter().enumerate() {
                    view.cell_mut(position, i).copy_from_slice(bytes);
                }
            });
        }
        let columns = Everything::columns(&batch).unwrap();
        for (i, row) in rows.iter().enumerate() {
            assert_eq!(Everything::get(&columns, i), *row);
        }
        assert_eq!((columns.d[4], columns.flags[3]), ([[1, 2], [3, 4], [4, i64::MIN]], [[1, 1], [0, 1]]));
    }

    #[test]
    fn other_columns_are_refused() {
        let schema = |dtype, shape: &[usize]| Schema::new(vec![Field::new("a", dtype, shape)]).unwrap();
        let column = "a".to_string();
        let asked = |schema: &Schema| Batch::new(schema, 2).rows_of::<[[f32; 2]; 3]>("a").map(drop);
        assert_eq!(asked(&schema(Dtype::F32, &[3, 2])), Ok(()));
        let error = asked(&schema(Dtype::I32, &[3, 2])).unwrap_err();
        let (stored, wanted) = (Dtype::I32, Dtype::F32);
        assert_eq!(error, BatchError::Dtype { column: column.clone(), stored, asked: wanted });
        for shape in [&[2, 3][..], &[3], &[3, 4], &[3, 2, 1], &[6], &[]] {
            let error = asked(&schema(Dtype::F32, shape)).unwrap_err();
            let (stored, asked) = (shape.to_vec(), vec![3, 2]);
            assert_eq!(error, BatchError::Shape { column: column.clone(), stored, asked });
        }
        let error = Batch::new(&schema(Dtype::F32, &[1]), 1).rows_of::<f32>("a").unwrap_err();
        assert_eq!(error.to_string(), "column 'a' has rows of shape [1] and was read as []");
        let error = Batch::new(&schema(Dtype::F32, &[]), 1).rows_of::<f32>("b").unwrap_err();
        assert_eq!(error, BatchError::NoColumn { name: "b".into() });
    }
}
