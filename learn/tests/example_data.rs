//! The examples' data lies in the repository, is read by what the examples have, and says where it comes from.

use rl_learn::{Kind, Tensor};
use std::path::PathBuf;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples/data").join(name)
}

fn rows(name: &str, header: &str) -> Vec<Vec<f64>> {
    let text = std::fs::read_to_string(path(name)).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some(header));
    lines.map(|line| line.split(',').map(|cell| cell.parse().unwrap()).collect()).collect()
}

#[test]
fn digits_are_1797_images_of_all_ten_classes() {
    let arrays = Tensor::read_npz(path("digits.npz")).unwrap();
    let get = |name: &str| &arrays.iter().find(|(n, _)| n == name).expect(name).1;
    let (images, labels) = (get("images"), get("labels"));
    assert_eq!((images.size(), images.kind()), (vec![1797, 8, 8], Kind::Uint8));
    assert_eq!((images.max().int64_value(&[]), images.min().int64_value(&[])), (16, 0));
    let counts = Vec::<i64>::try_from(labels.to_kind(Kind::Int64).bincount::<Tensor>(None, 10)).unwrap();
    // UCI's own description of the test set.
    assert_eq!(counts, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
}

#[test]
fn sunspots_are_the_years_from_1700_to_2008() {
    let rows = rows("sunspots.csv", "year,sunspots");
    let years: Vec<f64> = rows.iter().map(|row| row[0]).collect();
    assert_eq!(years, (1700..=2008).map(f64::from).collect::<Vec<_>>());
    assert!(rows.iter().all(|row| (0.0..200.0).contains(&row[1])));
    assert_eq!(rows[257], [1957.0, 190.2], "the highest on record");
}

#[test]
fn the_karate_club_has_34_members_and_78_ties() {
    let (nodes, edges) = (rows("karate-nodes.csv", "node,club"), rows("karate-edges.csv", "from,to,weight"));
    assert_eq!((nodes.len(), edges.len()), (34, 78));
    assert!(nodes.iter().enumerate().all(|(i, node)| node[0] == i as f64));
    assert_eq!(nodes.iter().filter(|node| node[1] == 0.0).count(), 17);
    assert!(edges.iter().all(|edge| edge[0] < edge[1] && edge[1] < 34.0 && edge[2] >= 1.0));
    assert_eq!((nodes[0][1], nodes[33][1]), (0.0, 1.0), "Mr. Hi and the officer");
}

#[test]
fn every_file_has_its_source_and_licence() {
    let readme = std::fs::read_to_string(path("README.md")).unwrap();
    for entry in std::fs::read_dir(path("")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name == "README.md" || readme.contains(&format!("`{name}`")), "{name} is not in the README");
    }
}
