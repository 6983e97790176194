//! Loaded batches as tensors: the same as on the host, with any number of workers, and as many rows as the batch has.

use rl_learn::{Device, DeviceLoader, Kind, MemoryState, Schema, Tensor};
use rl_minibatch::{
    At, BatchSize, Batches, Dtype, Field, FnRows, LastBatch, LoadError, Loader, RowCause, RowMut, Sequential,
    Table, Uniform,
};

const ROWS: u64 = 50;

fn schema() -> Schema {
    Schema::new(vec![
        Field::new("image", Dtype::U8, [2, 3]),
        Field::new("x", Dtype::F32, [4]),
        Field::new("label", Dtype::I64, []),
    ])
    .unwrap()
}

fn table() -> Table {
    let image: Vec<u8> = (0..ROWS * 6).map(|i| i as u8).collect();
    let x: Vec<f32> = (0..ROWS * 4).map(|i| i as f32).collect();
    let label: Vec<i64> = (0..ROWS as i64).collect();
    let columns: [&[u8]; 3] = [&image, bytemuck::cast_slice(&x), bytemuck::cast_slice(&label)];
    Table::new(&schema(), ROWS as usize, &columns).unwrap()
}

fn batches(sizes: BatchSize) -> Batches {
    Batches::builder(Uniform, ROWS, sizes).seed(4).last(LastBatch::Keep).build().unwrap()
}

fn vector(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.to_device(Device::Cpu).to_kind(Kind::Double).flatten(0, -1)).unwrap()
}

#[test]
fn tensors_hold_what_the_host_batch_holds() {
    let sizes = || BatchSize::Steps(vec![(0, 4), (3, 9), (5, 2), (8, 9)]);
    for workers in [0, 1, 3] {
        let mut plain = Loader::builder(table(), batches(sizes())).build().unwrap();
        let builder = Loader::builder(table(), batches(sizes())).workers(workers);
        let mut loader = DeviceLoader::new(builder, Device::Cpu).unwrap();
        for step in 0..12 {
            let expected = plain.next().unwrap();
            let rows = expected.rows() as i64;
            let batch = loader.next().unwrap();
            assert_eq!((batch.rows() as i64, batch["image"].size()), (rows, vec![rows, 2, 3]), "step {step}");
            assert_eq!(batch["image"].kind(), Kind::Uint8);
            let image: Vec<f64> =
                expected.typed::<u8>("image").unwrap().iter().map(|v| f64::from(*v)).collect();
            let x: Vec<f64> = expected.typed::<f32>("x").unwrap().iter().map(|v| f64::from(*v)).collect();
            let label: Vec<f64> = expected.typed::<i64>("label").unwrap().iter().map(|v| *v as f64).collect();
            assert_eq!((vector(&batch["image"]), vector(&batch["x"])), (image, x));
            assert_eq!(vector(&batch["label"]), label);
            assert_eq!(vector(batch.weight()), vec![1.0; rows as usize]);
            assert_eq!(loader.plan(), expected.plan());
        }
        assert_eq!(loader.progress(), plain.progress());
    }
}

#[test]
fn padding_has_weight_0() {
    let sampler = Sequential::new(ROWS).unwrap();
    let padded = Batches::builder(sampler, ROWS, BatchSize::Fixed(20)).last(LastBatch::Pad).build().unwrap();
    let mut loader = DeviceLoader::new(Loader::builder(table(), padded).workers(1), Device::Cpu).unwrap();
    for real in [20, 20, 10, 20, 20, 10, 20] {
        let mut mask = vec![1.0; 20];
        mask[real..].fill(0.0);
        assert_eq!(vector(loader.next().unwrap().weight()), mask);
    }
}

#[test]
fn batches_of_one_size_lie_in_the_same_memory() {
    let builder = Loader::builder(table(), batches(BatchSize::Fixed(8))).workers(2);
    let mut loader = DeviceLoader::new(builder, Device::Cpu).unwrap();
    let place = |loader: &mut DeviceLoader| loader.next().unwrap()["x"].data_ptr();
    let first = place(&mut loader);
    assert!((0..10).all(|_| place(&mut loader) == first));
}

#[test]
fn a_loader_resumes_behind_the_batch_it_gave_last() {
    let make = || {
        DeviceLoader::new(Loader::builder(table(), batches(BatchSize::Fixed(8))).workers(2), Device::Cpu)
            .unwrap()
    };
    let mut loader = make();
    for _ in 0..5 {
        loader.next().unwrap();
    }
    let saved = MemoryState::save(|v| loader.visit(v)).unwrap();
    let mut other = make();
    saved.load(|v| other.visit(v)).unwrap();
    for _ in 0..10 {
        let expected = vector(&loader.next().unwrap()["x"]);
        assert_eq!(vector(&other.next().unwrap()["x"]), expected);
        assert_eq!(other.plan(), loader.plan());
    }
}

#[test]
fn an_epoch_is_the_rest_of_the_present_one() {
    let make = |source: FnRows<_>| {
        let batches =
            Batches::builder(Sequential::new(ROWS).unwrap(), ROWS, BatchSize::Fixed(20)).build().unwrap();
        DeviceLoader::new(Loader::builder(source, batches).workers(1), Device::Cpu).unwrap()
    };
    let read = |broken: u64| {
        FnRows::new(schema(), ROWS, move |at: At, cells: &mut RowMut<'_>| -> Result<(), RowCause> {
            if at.row == broken { Err("torn".into()) } else { Ok(cells.write(2, &[at.row as i64])?) }
        })
    };
    let mut loader = make(read(ROWS));
    loader.next().unwrap();
    for first in [20.0, 0.0, 0.0] {
        let (mut rows, mut epoch) = (Vec::new(), loader.epoch());
        while let Some(batch) = epoch.next() {
            rows.extend(vector(&batch.unwrap()["label"]));
        }
        assert!(epoch.plan().ends_epoch && epoch.next().is_none());
        assert_eq!(rows, (first as u64..ROWS).map(|row| row as f64).collect::<Vec<_>>());
    }
    // An error ends it; the next one is what is left behind the error.
    let mut loader = make(read(25));
    let mut epoch = loader.epoch();
    assert!(epoch.next().unwrap().is_ok());
    assert!(matches!(epoch.next(), Some(Err(LoadError::Row { row: 25, .. }))));
    assert!(epoch.next().is_none());
    assert_eq!(loader.epoch().next().unwrap().unwrap().rows(), 10);
}

#[test]
fn errors_come_through() {
    let rows = FnRows::new(schema(), ROWS, |at: At, _: &mut RowMut<'_>| -> Result<(), RowCause> {
        Err(format!("no file for {}", at.row).into())
    });
    let builder = Loader::builder(rows, batches(BatchSize::Fixed(8))).workers(1);
    let mut loader = DeviceLoader::new(builder, Device::Cpu).unwrap();
    assert!(matches!(loader.next(), Err(LoadError::Row { .. })));
}
