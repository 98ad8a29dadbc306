//! Every rule of the schemas tried both ways: objects that are accepted and objects that are refused, with a part of
//! what is told. The tests here hold them against the rules without a cluster, the API server's suite against itself.
//! Must not hold what takes a story to refuse.

mod cache;
mod gateway;
mod node_cache;
mod registry;
mod seeds;

/// An object that somebody creates. A namespaced one names no namespace.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    /// YAML.
    pub object: String,
    /// A part of the message, or `None` where it is accepted.
    pub refused: Option<&'static str>,
}

/// An object that somebody changes.
#[derive(Clone, Debug)]
pub struct Update {
    pub name: String,
    /// YAML, accepted by itself.
    pub before: String,
    /// YAML; the same kind and name.
    pub after: String,
    /// A part of the message, or `None` where it is accepted.
    pub refused: Option<&'static str>,
}

/// All objects that are created.
#[must_use]
pub fn cases() -> Vec<Case> {
    [seeds::cases(), cache::cases(), node_cache::cases(), registry::cases(), gateway::cases()].concat()
}

/// All objects that are changed.
#[must_use]
pub fn updates() -> Vec<Update> {
    [seeds::updates(), cache::updates(), node_cache::updates(), registry::updates(), gateway::updates()]
        .concat()
}

/// Specs of one kind, in YAML's flow notation, each with what is told of it.
type Table<'t> = &'t [(&'t str, Option<&'static str>)];

/// `object` makes a whole object of a spec's fields.
fn table(kind: &str, rows: Table<'_>, object: impl Fn(&str) -> String) -> Vec<Case> {
    rows.iter()
        .map(|(fields, refused)| Case {
            name: format!("{kind} {{{fields}}}"),
            object: object(fields),
            refused: *refused,
        })
        .collect()
}

/// Changes of one kind's specs: before, after, and what is told.
fn changes(
    kind: &str,
    rows: &[(&str, &str, Option<&'static str>)],
    object: impl Fn(&str) -> String,
) -> Vec<Update> {
    rows.iter()
        .map(|(before, after, refused)| Update {
            name: format!("{kind} {{{before}}} -> {{{after}}}"),
            before: object(before),
            after: object(after),
            refused: *refused,
        })
        .collect()
}

/// An object of this group with a spec in flow notation.
fn object(kind: &str, name: &str, fields: &str) -> String {
    format!(
        "apiVersion: registry-operator.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {{{fields}}}\n"
    )
}

#[cfg(test)]
mod tests;
