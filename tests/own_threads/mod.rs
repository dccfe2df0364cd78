//! The threads of this process that are the library's.

/// Their names, trimmed to what the system keeps of one.
pub fn names() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.flat_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")));
    let ours = names.filter(|name| name.starts_with("cancel-tree"));
    ours.map(|name| name.trim().into()).collect()
}
