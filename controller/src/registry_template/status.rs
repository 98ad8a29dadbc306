//! The status step of a RegistryTemplate. Must not change anything else.

use kube::api::Api;

use super::validate::Unsound;
use crate::condition::{Conditions, READY, Truth};
use crate::context::Context;
use crate::crd::{RegistryTemplate, RegistryTemplateStatus};
use crate::error::Error;
use crate::events::Kind;
use crate::status::write;

const INVALID: &str = "InvalidConfiguration";

/// Writes the status where it differs; tells once that a template became unsound.
pub(super) async fn report(
    context: &Context,
    template: &RegistryTemplate,
    used_by: usize,
    verdict: Result<(), Unsound>,
) -> Result<(), Error> {
    let (status, news) = status_of(template, used_by, verdict);
    let api = Api::all(context.client.clone());
    write(context, &api, template, template.status.as_ref(), &status).await?;
    if let Some(news) = news {
        context.events.tell(template, Kind::Warning, INVALID, news).await;
    }
    Ok(())
}

/// Pure: the status, and what is new and bad.
fn status_of(
    template: &RegistryTemplate,
    used_by: usize,
    verdict: Result<(), Unsound>,
) -> (RegistryTemplateStatus, Option<String>) {
    let before = template.status.as_ref().map_or(&[][..], |status| &status.conditions);
    let (truth, reason, message) = match verdict {
        Ok(()) => (Truth::True, "Valid", String::new()),
        Err(Unsound(why)) => {
            (Truth::False, INVALID, format!("{why}; the Registries that name it keep what they run"))
        }
    };
    let conditions =
        Conditions::of(before, template.metadata.generation).set(READY, truth, reason, message.clone());
    let news = (truth == Truth::False && !conditions.transitions().is_empty()).then_some(message);
    let status = RegistryTemplateStatus {
        observed_generation: template.metadata.generation,
        used_by: i32::try_from(used_by).unwrap_or(i32::MAX),
        conditions: conditions.into_vec(),
    };
    (status, news)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unsound_template_is_told_once() {
        let mut template = RegistryTemplate::default();
        template.metadata.generation = Some(3);
        let unsound = || Err(Unsound("registry:latest names no version".to_owned()));
        let (status, news) = status_of(&template, 4, unsound());
        assert_eq!((status.used_by, status.observed_generation), (4, Some(3)));
        assert_eq!(
            (status.conditions[0].type_.as_str(), status.conditions[0].status.as_str()),
            ("Ready", "False")
        );
        assert!(
            news.is_some_and(|news| news.starts_with("registry:latest names no version; the Registries"))
        );

        template.status = Some(status.clone());
        let (again, news) = status_of(&template, 4, unsound());
        assert_eq!((again, news), (status, None));

        let (sound, news) = status_of(&template, 4, Ok(()));
        assert_eq!((sound.conditions[0].reason.as_str(), news), ("Valid", None));
    }
}
