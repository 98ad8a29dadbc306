//! Compares what a build step makes with the file kept beside the tests. `UPDATE_GOLDEN=1` writes it anew.

use std::path::Path;

use super::Child;

/// `case` is the file's path below `tests/golden`, without `.yaml`.
pub(crate) fn check(case: &str, children: &[Child]) {
    let documents: Vec<String> = children
        .iter()
        .map(|child| {
            let object = serde_json::to_value(&child.object).unwrap();
            serde_saphyr::to_string(&object).unwrap()
        })
        .collect();
    check_text(&format!("{case}.yaml"), &documents.join("---\n"));
}

/// The same for any text; `file` with its ending.
pub(crate) fn check_text(file: &str, made: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, made).unwrap();
        return;
    }
    let kept = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; UPDATE_GOLDEN=1 writes it", path.display()));
    let line = kept.lines().zip(made.lines()).position(|(kept, made)| kept != made);
    let line = line.unwrap_or_else(|| kept.lines().count().min(made.lines().count()));
    assert!(
        kept == made,
        "{}:{}: kept {:?}, made {:?}; UPDATE_GOLDEN=1 writes it anew",
        path.display(),
        line + 1,
        kept.lines().nth(line),
        made.lines().nth(line),
    );
}
