//! Contexts: data that say as whom, and in which form, the same things are asked again.
//!
//! A context is a system message. Under each of them two things are read: fixed replies to fixed questions, the same text in every
//! context, from which the assistant axis is made (Lu et al. 2026, arXiv 2601.10387, with teacher-forced instead of generated
//! replies, so that changing generations cannot pass for changing geometry), and the first crossed quartets and answer stems of some concepts.
//! Formats render those quartets in other forms, without a persona.

use super::concept::{Concept, Turn, is_toml, parse_toml};
use super::design::{self, Profile, Spec};
use super::item::{AXIS, CHAT, DEFAULT, ItemSet, Setting};
use super::label_family::LabelFamily;
use super::records::is_slug;
use super::slots::fill_parameters;
use super::template::{Message, Template};
use super::tokenize::{Ruler, SPAN_CLOSE, SPAN_OPEN};
use crate::manifest::{PersonaSet, Personas};
use anyhow::{Context, Result, ensure};
use include_dir::{Dir, include_dir};
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

static SETS: Dir = include_dir!("$CARGO_MANIFEST_DIR/concepts/personas");

/// Null concepts that are asked in contexts when the manifest names no concepts.
const NULL_CONCEPTS: usize = 3;

/// What a context is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The assistant as it is: one end of the axis.
    Default,
    /// A part to play: the other end of the axis, and the space of roles.
    Role,
    /// Another identity, against what the model was taught.
    Conflict,
    /// A frame that asks the model to leave its usual ways.
    Frame,
}

impl Kind {
    /// As files spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Role => "role",
            Self::Conflict => "conflict",
            Self::Frame => "frame",
        }
    }
}

/// A context.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Persona {
    pub id: String,
    pub kind: Kind,
    /// System message; empty for none, which only a default context may have.
    pub system: String,
    /// Whether concepts are asked in it; default contexts never are, since that is how concepts are asked anyway.
    #[serde(default)]
    pub quartets: bool,
}

/// A question and its reply, the same in every context.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reply {
    pub question: String,
    pub response: String,
}

/// Another form of some concepts' quartets.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Format {
    pub id: String,
    /// Concepts whose slots fit into the templates; none for a wrap.
    #[serde(default)]
    pub concepts: Vec<String>,
    /// The user's text is rendered as it is, without a chat template.
    #[serde(default)]
    pub raw: bool,
    #[serde(default)]
    pub templates: Vec<Turn>,
    /// Instead of templates: what is put around a concept's own ones, for every concept that no format has templates for.
    pub wrap: Option<Wrap>,
}

/// A user's text around a concept's own template: `{user}` and `{assistant}` are its turns.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wrap {
    /// For templates without an assistant's turn.
    pub question: String,
    /// For those with one.
    pub exchange: String,
}

impl Wrap {
    fn around(&self, turn: &Turn) -> Turn {
        let user = turn.system.iter().map(|system| format!("{system} ")).collect::<String>() + &turn.user;
        let text = match &turn.assistant {
            Some(assistant) => self.exchange.replace("{user}", &user).replace("{assistant}", assistant),
            None => self.question.replace("{user}", &user),
        };
        Turn { user: text, ..Turn::default() }
    }
}

/// A file of contexts, replies and formats, each of which may be missing.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    source: String,
    license: String,
    #[serde(default)]
    persona: Vec<Persona>,
    #[serde(default)]
    reply: Vec<Reply>,
    #[serde(default)]
    format: Vec<Format>,
}

/// The contexts of a run, checked, and the concepts that are asked in them.
#[derive(Debug, Clone)]
pub struct Contexts {
    pub personas: Vec<Persona>,
    pub replies: Vec<Reply>,
    pub formats: Vec<Format>,
    pub concepts: BTreeSet<String>,
    /// Quartets per concept and context; `None` leaves it to the profile.
    pub groups: Option<usize>,
    source: String,
    license: String,
}

impl File {
    fn parse(text: &str, place: &str) -> Result<Self> {
        let file: Self = parse_toml(text, place)?;
        file.check().with_context(|| place.to_owned())?;
        Ok(file)
    }

    fn check(&self) -> Result<()> {
        for persona in &self.persona {
            let id = &persona.id;
            ensure!(
                is_slug(id) && id != DEFAULT,
                "[[persona]] id: found {id:?}, expected lower-case letters, digits and _, and not \"default\""
            );
            let empty = persona.system.trim().is_empty();
            ensure!(!empty || persona.kind == Kind::Default, "[[persona]] {id}: system is empty, which only a default context may be");
            ensure!(!persona.quartets || persona.kind != Kind::Default, "[[persona]] {id}: quartets are for roles, conflicts and frames");
        }
        for reply in &self.reply {
            let filled = |text: &str| !text.trim().is_empty();
            ensure!(filled(&reply.question), "[[reply]] with the response {:?}: the question is empty", reply.response);
            ensure!(filled(&reply.response), "[[reply]] to {:?}: the response is empty, so there is nothing to read", reply.question);
        }
        for format in &self.format {
            let id = &format.id;
            ensure!(is_slug(id) && id != CHAT, "[[format]] id: found {id:?}, expected lower-case letters, digits and _, and not \"chat\"");
            if let Some(wrap) = &format.wrap {
                ensure!(
                    format.templates.is_empty() && format.concepts.is_empty(),
                    "[[format]] {id}: a wrap is for every concept that no format has templates for, so it has no templates and no concepts"
                );
                for (text, slots) in [(&wrap.question, &["{user}"][..]), (&wrap.exchange, &["{user}", "{assistant}"])] {
                    for slot in slots {
                        ensure!(text.contains(slot), "[[format]] {id}: wrap {text:?} lacks {slot}");
                    }
                }
                continue;
            }
            ensure!(!format.templates.is_empty(), "[[format]] {id}: templates is empty, and there is no wrap");
            ensure!(!format.concepts.is_empty(), "[[format]] {id}: concepts is empty, expected the concepts whose slots fit the templates");
            for turn in &format.templates {
                let text = [Some(turn.user.as_str()), turn.assistant.as_deref()].into_iter().flatten().collect::<String>();
                for slot in ["{a}", "{b}", "[[", "]]"] {
                    ensure!(text.contains(slot), "[[format]] {id}: template {text:?} lacks {slot}");
                }
                ensure!(
                    !format.raw || (turn.assistant.is_none() && turn.system.is_none()),
                    "[[format]] {id}: a raw template is user text only"
                );
            }
        }
        Ok(())
    }
}

/// Texts of a set's files, each with the name to call it by.
fn files(set: &PersonaSet) -> Result<Vec<(String, String)>> {
    Ok(match set {
        PersonaSet::Builtin => {
            let text = |file: &include_dir::File<'static>| file.contents_utf8().unwrap_or_default().to_owned();
            let all = SETS.files().filter(|file| is_toml(file.path()));
            all.map(|file| (format!("concepts/personas/{}", file.path().display()), text(file))).collect()
        }
        PersonaSet::Path(path) => {
            let mut paths = vec![path.clone()];
            if path.is_dir() {
                let listed = std::fs::read_dir(path).with_context(|| format!("{}: cannot be listed", path.display()))?;
                paths = listed.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| is_toml(path)).collect();
                paths.sort();
                ensure!(!paths.is_empty(), "{}: the folder of personas holds no .toml file", path.display());
            }
            let text = |path: std::path::PathBuf| {
                let text = std::fs::read_to_string(&path).with_context(|| format!("{}: cannot be read", path.display()))?;
                Ok((path.display().to_string(), text))
            };
            paths.into_iter().map(text).collect::<Result<_>>()?
        }
    })
}

/// Contexts of the manifest's sets: a later set replaces contexts and formats of the same id, and all replies if it has any.
///
/// # Errors
/// A file that is wrong, a pattern that matches nothing, or too little for an axis: no default context, fewer than two roles, or
/// fewer than four replies.
pub fn load(wanted: &Personas, concepts: &[Concept]) -> Result<Contexts> {
    let (mut personas, mut formats): (Vec<Persona>, Vec<Format>) = Default::default();
    let (mut replies, mut sources, mut licenses) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    for set in &wanted.sets {
        let parsed = files(set)?.into_iter().map(|(place, text)| File::parse(&text, &place)).collect::<Result<Vec<_>>>()?;
        if parsed.iter().any(|file| !file.reply.is_empty()) {
            replies.clear();
        }
        for file in parsed {
            replace(&mut personas, file.persona, |persona| &persona.id);
            replace(&mut formats, file.format, |format| &format.id);
            replies.extend(file.reply);
            sources.insert(file.source);
            licenses.insert(file.license);
        }
    }
    let ids: Vec<&str> = personas.iter().map(|persona| persona.id.as_str()).collect();
    wanted.include.iter().chain(&wanted.exclude).try_for_each(|glob| glob.require(&ids))?;
    let is_in = |globs: &[crate::manifest::Glob], name: &str| globs.iter().any(|glob| glob.matches(name));
    personas.retain(|persona| {
        let included = wanted.include.is_empty() || persona.kind == Kind::Default || is_in(&wanted.include, &persona.id);
        included && !is_in(&wanted.exclude, &persona.id)
    });
    let place = &wanted.place;
    let count = |kind| personas.iter().filter(|persona| persona.kind == kind).count();
    ensure!(count(Kind::Default) > 0, "{place}: there is no context of kind \"default\", expected one or more to begin the axis at");
    ensure!(
        count(Kind::Role) >= 2,
        "{place}: found {} contexts of kind \"role\", expected at least 2 to end the axis at",
        count(Kind::Role)
    );
    ensure!(replies.len() >= 4, "{place}: found {} replies, expected at least 4 to read contexts from", replies.len());
    let asked: Vec<&Concept> = concepts.iter().filter(|concept| concept.crossed.is_some()).collect();
    let names: Vec<&str> = asked.iter().map(|concept| concept.name.as_str()).collect();
    wanted.concepts.iter().try_for_each(|glob| glob.require(&names))?;
    let null = asked.iter().filter(|concept| concept.null_bank).take(NULL_CONCEPTS);
    let all = asked.iter().filter(|concept| !concept.null_bank).chain(null);
    let chosen: BTreeSet<String> = match wanted.concepts.is_empty() {
        true => all.map(|concept| concept.name.clone()).collect(),
        false => names.into_iter().filter(|name| is_in(&wanted.concepts, name)).map(str::to_owned).collect(),
    };
    if !wanted.formats {
        formats.clear();
    }
    let joined = |texts: BTreeSet<String>| texts.into_iter().collect::<Vec<_>>().join("; ");
    Ok(Contexts { personas, replies, formats, concepts: chosen, groups: wanted.groups, source: joined(sources), license: joined(licenses) })
}

fn replace<T>(all: &mut Vec<T>, new: Vec<T>, id: impl Fn(&T) -> &String) {
    for one in new {
        all.retain(|old| id(old) != id(&one));
        all.push(one);
    }
}

/// A template that drops system messages or refuses them has no system role; nor has one that shows them only where a user speaks last, as
/// Mistral's, since what is asked goes on to the beginning of an answer.
pub fn has_system_role(template: &Template) -> bool {
    const MARK: &str = "A system message.";
    let messages = ["system", "user", "assistant", "user", "assistant"].map(|role| (role, if role == "system" { MARK } else { "Hello." }));
    let messages = messages.map(|(role, text)| Message::new(role, text));
    let shows = |rendered: Result<String>| rendered.is_ok_and(|text| text.contains(MARK));
    shows(template.render(&messages[..2], true)) && shows(template.render_open(&messages[..3])) && shows(template.render_open(&messages))
}

/// Puts `system` before a conversation: as its system message, or at the head of the first turn where there is no system role.
pub(super) fn in_context(mut messages: Vec<Message>, system: &str, has_role: bool) -> Vec<Message> {
    let first_is_system = messages.first().is_some_and(|message| message.role == "system");
    match messages.first_mut() {
        _ if system.is_empty() => {}
        Some(first) if first_is_system || !has_role => first.content = format!("{system}\n\n{}", first.content),
        _ => messages.insert(0, Message::new("system", system)),
    }
    messages
}

impl Contexts {
    /// Formats of a concept with their templates: those that name it, or else those that wrap its own.
    fn formats_of(&self, concept: &Concept) -> Vec<(&Format, Cow<'_, [Turn]>)> {
        let named = self.formats.iter().filter(|format| format.concepts.contains(&concept.name));
        let named: Vec<_> = named.map(|format| (format, Cow::from(&format.templates))).collect();
        if !named.is_empty() {
            return named;
        }
        let own = concept.crossed.as_ref().map_or(&[][..], |block| &block.templates);
        let wrapped = self.formats.iter().filter_map(|format| Some((format, format.wrap.as_ref()?)));
        wrapped.map(|(format, wrap)| (format, own.iter().map(|turn| wrap.around(turn)).collect())).collect()
    }

    /// Adds the items of all contexts and formats behind those that are there. A system message goes to the user's turn where the
    /// template has no system role, and the item says so.
    ///
    /// # Errors
    /// Names the item: a slot that nothing fills, a template that fails, or a span that no token covers.
    pub fn add_items(
        &self,
        set: &mut ItemSet,
        concepts: &[Concept],
        profile: Profile,
        parameters: &BTreeMap<String, String>,
        ruler: &Ruler,
    ) -> Result<()> {
        let has_role = has_system_role(&ruler.template);
        let systems = self.personas.iter().map(|persona| fill_parameters(&persona.system, parameters, &persona.id));
        let systems = systems.collect::<Result<Vec<_>>>()?;
        let setting = |persona: &Persona| Setting {
            persona_id: persona.id.clone(),
            persona_kind: persona.kind.name().to_owned(),
            format_id: CHAT.to_owned(),
            system_in_user: !has_role && !persona.system.trim().is_empty(),
            raw: false,
        };
        for (number, reply) in self.replies.iter().enumerate() {
            for (persona, system) in self.personas.iter().zip(&systems) {
                let response = format!("{SPAN_OPEN}{}{SPAN_CLOSE}", reply.response.trim());
                let messages = vec![Message::new("user", reply.question.trim()), Message::new("assistant", response)];
                let mut spec = Spec::unlabelled(AXIS, LabelFamily::PersonaAxis, format!("reply-{number:02}"), persona.id.clone());
                spec.messages = in_context(messages, system.trim(), has_role);
                set.push(spec, &setting(persona), &self.source, &self.license, ruler)?;
            }
        }
        let groups = self.groups.unwrap_or(if profile.crossed < Profile::FULL.crossed { 8 } else { 12 });
        for concept in concepts.iter().filter(|concept| self.concepts.contains(&concept.name)) {
            let mut specs = design::first_quartets(concept, profile, groups, parameters, None)?;
            specs.extend(design::first_stems(concept, groups, parameters)?);
            for (persona, system) in self.personas.iter().zip(&systems).filter(|(persona, _)| persona.quartets) {
                for mut spec in specs.iter().cloned() {
                    spec.messages = in_context(spec.messages, system.trim(), has_role);
                    set.push(spec, &setting(persona), &concept.source, &concept.license, ruler)?;
                }
            }
            for (format, templates) in self.formats_of(concept) {
                let setting =
                    Setting { persona_id: DEFAULT.to_owned(), format_id: format.id.clone(), raw: format.raw, ..Setting::default() };
                for spec in design::first_quartets(concept, profile, groups, parameters, Some(&templates))? {
                    set.push(spec, &setting, &concept.source, &concept.license, ruler)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "persona_tests.rs"]
mod tests;
