//! Runs each sensor on a thread of its own and keeps account of which still watch.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bpfwatch_core::finding::SensorHealth;
use bpfwatch_core::platform::{Platform, SensorSettings};
use bpfwatch_core::sensor::{Outlet, Sensor, SensorError, Via};

use crate::exit::{Code, Failure};
use crate::wiring::now;

/// How long a sensor may take to end once it was woken.
const END_WITHIN: Duration = Duration::from_millis(200);

/// Makes the platform's sensors: what needs privileges is open then.
///
/// # Errors
/// When none can watch.
pub fn open(
    platform: &dyn Platform,
    settings: &SensorSettings,
) -> Result<Vec<Box<dyn Sensor>>, Failure> {
    let sensors = platform.sensors(settings).map_err(|error| Failure::sensor(&error))?;
    if sensors.is_empty() {
        let failure = Failure::new(Code::Unavailable, "there is no sensor for this system");
        return Err(failure.next("`bpfwatch doctor` shows what can be seen here"));
    }
    Ok(sensors)
}

/// The sensors that were started.
pub struct Sensors {
    running: Vec<Running>,
    outlet: Outlet,
}

struct Running {
    name: &'static str,
    via: Option<Via>,
    wake: Box<dyn Fn() + Send + Sync>,
    thread: Option<JoinHandle<()>>,
    error: Arc<Mutex<Option<SensorError>>>,
    told: bool,
}

impl Running {
    fn error(&self) -> Option<SensorError> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

/// Closes the channel when the last sensor has ended, by a panic too.
struct Alive {
    count: Arc<AtomicUsize>,
    outlet: Outlet,
}

impl Drop for Alive {
    fn drop(&mut self) {
        if self.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.outlet.close();
        }
    }
}

impl Sensors {
    /// Starts them all.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(sensors: Vec<Box<dyn Sensor>>, outlet: &Outlet) -> std::io::Result<Self> {
        let count = Arc::new(AtomicUsize::new(sensors.len()));
        let mut running = Vec::new();
        for sensor in sensors {
            let (name, via, wake) = (sensor.name(), sensor.via(), sensor.waker());
            let error = Arc::new(Mutex::new(None));
            let alive = Alive { count: Arc::clone(&count), outlet: outlet.clone() };
            let slot = Arc::clone(&error);
            let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
                let outlet = &alive.outlet;
                if let Err(error) = sensor.run(outlet) {
                    outlet.lost(now(), &Arc::from(name), 0, &format!("stopped: {}", error.what));
                    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                }
            })?;
            running.push(Running { name, via, wake, thread: Some(thread), error, told: false });
        }
        Ok(Self { running, outlet: outlet.clone() })
    }

    /// Errors of sensors that ended since the last call.
    pub fn take_errors(&mut self) -> Vec<SensorError> {
        let untold = self.running.iter_mut().filter(|sensor| !sensor.told && !sensor.is_running());
        let mut errors = Vec::new();
        for sensor in untold {
            sensor.told = true;
            errors.extend(sensor.error().or_else(|| {
                let panicked = sensor.thread.take().is_some_and(|thread| thread.join().is_err());
                panicked.then(|| SensorError {
                    sensor: sensor.name,
                    what: "ended by an error in bpfwatch itself".to_owned(),
                    mend: Some("please report it".to_owned()),
                })
            }));
        }
        errors
    }

    /// How each fares.
    pub fn health(&self) -> Vec<SensorHealth> {
        let health = |sensor: &Running| SensorHealth {
            name: sensor.name.to_owned(),
            running: sensor.is_running(),
            via: sensor.via.as_ref().map(Via::get),
            error: sensor.error().map(|error| error.what),
        };
        self.running.iter().map(health).collect()
    }

    /// Their names and ways, for people.
    pub fn names(&self) -> Vec<String> {
        let name = |sensor: &Running| match &sensor.via {
            Some(via) => format!("{} ({})", sensor.name, via.get()),
            None => sensor.name.to_owned(),
        };
        self.running.iter().map(name).collect()
    }

    /// Wakes them all to end and waits for them, but not longer than they are allowed.
    pub fn stop(&mut self) {
        for sensor in &self.running {
            (sensor.wake)();
        }
        let deadline = Instant::now() + END_WITHIN;
        while self.running.iter().any(Running::is_running) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(2));
        }
        self.outlet.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bpfwatch_core::sensor;

    /// Changes its way as soon as it runs, and runs until woken.
    struct Changing {
        via: Via,
        stop: Arc<std::sync::atomic::AtomicBool>,
    }

    impl Sensor for Changing {
        fn name(&self) -> &'static str {
            "changing"
        }

        fn via(&self) -> Option<Via> {
            Some(self.via.clone())
        }

        fn waker(&self) -> Box<dyn Fn() + Send + Sync> {
            let stop = Arc::clone(&self.stop);
            Box::new(move || stop.store(true, Ordering::Release))
        }

        fn run(self: Box<Self>, _outlet: &Outlet) -> Result<(), SensorError> {
            self.via.set("after");
            while !self.stop.load(Ordering::Acquire) {
                thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        }
    }

    #[test]
    fn health_tells_how_a_sensor_watches_now() {
        let (outlet, _inlet) = sensor::channel(64 * 1024);
        let sensor = Changing { via: "before".into(), stop: Arc::default() };
        assert_eq!(sensor.via().map(|via| via.get()).as_deref(), Some("before"));
        let mut sensors = Sensors::start(vec![Box::new(sensor)], &outlet).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while sensors.health()[0].via.as_deref() != Some("after") {
            assert!(Instant::now() < deadline, "{:?}", sensors.health());
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(sensors.names(), ["changing (after)"]);
        sensors.stop();
    }
}
