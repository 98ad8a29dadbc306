//! Log lines to stderr: JSON with flattened fields, or text for people. Level and format may change while it runs.
//! Must not choose what is logged; secrets are kept out where lines are written.

use std::fmt;
use std::io;
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use larder_wire::settings::{LogFormat, LogSettings};
use tracing::{Event, Subscriber, error, level_filters::LevelFilter, warn};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{Format, Full, Json, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

/// The running log, for changes of its settings.
pub(crate) struct Log {
    filter: reload::Handle<Targets, Registry>,
    as_json: Arc<AtomicBool>,
}

/// Starts logging to stderr; a panic anywhere becomes a line too.
pub(crate) fn start(settings: &LogSettings) -> Log {
    let (subscriber, log) = subscriber(settings, io::stderr);
    // Only a second start could fail, and then the first log stands.
    let _ = subscriber.try_init();
    std::panic::set_hook(Box::new(tell_panic));
    log
}

impl Log {
    /// Takes new settings over; a filter that cannot be read leaves the old one.
    pub(crate) fn apply(&self, settings: &LogSettings) {
        self.as_json.store(settings.format == LogFormat::Json, Ordering::Relaxed);
        if let Err(error) = self.filter.reload(filter(settings)) {
            warn!(%error, "the log keeps its level");
        }
    }
}

fn subscriber<W>(settings: &LogSettings, writer: W) -> (impl Subscriber + Send + Sync, Log)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let as_json = Arc::new(AtomicBool::new(settings.format == LogFormat::Json));
    let (filter, handle) = reload::Layer::new(filter(settings));
    let lines = Lines {
        json: Format::default().json().flatten_event(true).with_current_span(false).with_span_list(false),
        text: Format::default().with_ansi(false),
        as_json: Arc::clone(&as_json),
    };
    let written = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(writer).event_format(lines);
    (tracing_subscriber::registry().with(filter).with(written), Log { filter: handle, as_json })
}

/// The settings were checked when they were read; what slips through is `info`.
fn filter(settings: &LogSettings) -> Targets {
    settings.level.parse().unwrap_or_else(|_| Targets::new().with_default(LevelFilter::INFO))
}

fn tell_panic(panic: &PanicHookInfo<'_>) {
    let words = panic.payload_as_str().unwrap_or("no words");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    error!(panic = words, place, "a task panicked");
}

/// Both formats at once, so that a reload can change between them.
struct Lines {
    json: Format<Json>,
    text: Format<Full>,
    as_json: Arc<AtomicBool>,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'l> LookupSpan<'l>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        if self.as_json.load(Ordering::Relaxed) {
            self.json.format_event(context, to, event)
        } else {
            self.text.format_event(context, to, event)
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::sync::Mutex;
    use tracing::{debug, info};

    /// Lines kept for a look at them.
    #[derive(Clone, Default)]
    pub(crate) struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Kept {
        /// What was written since the last look.
        pub(crate) fn take(&self) -> String {
            String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
        }
    }

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_json_with_flat_fields_or_text_and_change_while_running() {
        let to = Kept::default();
        let mut settings = LogSettings { format: LogFormat::Json, level: "info".to_owned() };
        let written = to.clone();
        let (subscriber, log) = subscriber(&settings, move || written.clone());
        tracing::subscriber::with_default(subscriber, || {
            info!(registry = "docker.io", bytes = 7, "pulled");
            debug!("unseen");
            let line: serde_json::Value = serde_json::from_str(&to.take()).unwrap();
            assert_eq!(
                (&line["message"], &line["registry"], &line["bytes"], &line["level"]),
                (&"pulled".into(), &"docker.io".into(), &7.into(), &"INFO".into())
            );

            settings = LogSettings { format: LogFormat::Text, level: "warn,larder_agent=debug".to_owned() };
            log.apply(&settings);
            debug!(registry = "docker.io", "seen");
            let line = to.take();
            assert!(line.contains("seen") && line.contains("registry=\"docker.io\""), "{line}");
            info!(target: "elsewhere", "unseen");
            assert_eq!(to.take(), "");
        });
    }
}
