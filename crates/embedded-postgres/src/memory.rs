/// Bytes of memory that this process and its children may use: the smaller one of the machine's and
/// the container's. `None` if the system reports neither.
pub fn memory() -> Option<u64> {
    let machine = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| {
            let kilobytes = text
                .lines()
                .find_map(|line| line.strip_prefix("MemTotal:"))?;
            let kilobytes: u64 = kilobytes.trim().trim_end_matches(" kB").parse().ok()?;
            Some(kilobytes << 10)
        });
    let container = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let container = container.and_then(|text| text.trim().parse::<u64>().ok());
    machine.into_iter().chain(container).min()
}
