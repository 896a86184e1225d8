//! Prints what the Linux sensor sees, one JSON object a line.
//!
//! `observe` watches until interrupted, `observe SECONDS` for a while, `observe snapshot` looks once.

#[cfg(target_os = "linux")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    use std::io::Write;
    use std::time::{Duration, Instant};

    use bpfwatch_core::platform::{Platform, SensorSettings};
    use bpfwatch_core::sensor::{CHANNEL_BYTES, Received, channel};
    use bpfwatch_linux::LinuxPlatform;

    let mut out = std::io::stdout().lock();
    let argument = std::env::args().nth(1);
    if argument.as_deref() == Some("snapshot") {
        let start = Instant::now();
        let seen = LinuxPlatform.snapshot()?;
        let took = start.elapsed();
        for observation in seen {
            writeln!(out, "{}", serde_json::to_string(&observation)?)?;
        }
        eprintln!("took {took:?}");
        return Ok(());
    }
    let end = match argument {
        Some(seconds) => Some(Instant::now() + Duration::from_secs_f64(seconds.parse()?)),
        None => None,
    };
    let (outlet, inlet) = channel(CHANNEL_BYTES);
    let mut threads = Vec::new();
    let mut wakers = Vec::new();
    for sensor in LinuxPlatform.sensors(&SensorSettings::default())? {
        wakers.push(sensor.waker());
        let outlet = outlet.clone();
        threads.push(std::thread::spawn(move || sensor.run(&outlet)));
    }
    while end.is_none_or(|end| Instant::now() < end) {
        if let Received::Batch(batch) = inlet.receive(Duration::from_millis(200)) {
            for observation in batch {
                writeln!(out, "{}", serde_json::to_string(&observation)?)?;
            }
            out.flush()?;
        }
        if threads.iter().any(std::thread::JoinHandle::is_finished) {
            break;
        }
    }
    let start = Instant::now();
    wakers.iter().for_each(|wake| wake());
    for thread in threads {
        thread.join().map_err(|_| "a sensor panicked")??;
    }
    eprintln!("stopped in {:?}", start.elapsed());
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("this example needs Linux");
}
