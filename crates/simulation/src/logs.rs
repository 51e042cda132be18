//! What the processes log, as lines of the story.

use std::fmt::Write as _;
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use crate::story::Story;

/// Of this module's crates; others log what nobody reads here.
const OWN: &str = "restante";

struct ToStory(Arc<Story>);

/// Until the guard is dropped, everything that this thread logs goes into `story`.
pub(crate) fn tell(story: Arc<Story>) -> tracing::subscriber::DefaultGuard {
    tracing::subscriber::set_default(tracing_subscriber::registry().with(ToStory(story)))
}

impl<S: Subscriber> Layer<S> for ToStory {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        if *metadata.level() <= Level::INFO && metadata.target().starts_with(OWN) {
            let mut line = Line(String::new());
            event.record(&mut line);
            let place = metadata.target().trim_start_matches("restante_");
            self.0.tell(format_args!("      {place}:{}", line.0));
        }
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}
