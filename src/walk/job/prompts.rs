//! What a manifest asks, as items of the frozen ruler.

use super::Job;
use crate::manifest::{Keep, Manifest, Material, Profile, Readout, Talk};
use crate::model::config::DecoderConfig;
use crate::prompt::asker::Asker;
use crate::prompt::choices;
use crate::prompt::concept::{self, Concept};
use crate::prompt::forest::Forest;
use crate::prompt::item::ItemSet;
use crate::prompt::persona::Reply;
use crate::prompt::talks::Talks;
use crate::prompt::tokenize::Ruler;
use crate::prompt::{design, neutral, persona, statements};
use crate::walk::{conversation, talks};
use anyhow::Result;

/// Concepts, their items, and what is asked under interventions and behind conversations.
pub(super) struct Prompts {
    pub(super) concepts: Vec<Concept>,
    pub(super) set: ItemSet,
    pub(super) causal: Option<choices::Asked>,
    /// Fixed replies of the contexts.
    pub(super) replies: Vec<Reply>,
}

impl Prompts {
    /// Tokenises every item; readouts that they need are added to the manifest's.
    ///
    /// # Errors
    /// See [`ItemSet::new`] and [`concept::load`].
    pub(super) fn of(manifest: &mut Manifest, ruler: &Ruler) -> Result<Self> {
        let wanted = &manifest.concepts;
        let concepts = concept::load(wanted)?;
        let pool = neutral::pool(&wanted.packs)?;
        let profile = match wanted.profile {
            Profile::Full => design::Profile::FULL,
            Profile::Quick => design::Profile::QUICK,
        };
        let mut set = ItemSet::new(&concepts, &pool, profile, &wanted.parameters, ruler)?;
        if wanted.material.contains(&Material::Stated) {
            let facts = statements::load(&wanted.packs)?;
            facts.iter().try_for_each(|facts| facts.add_items(&mut set, &concepts, profile, &wanted.parameters, ruler))?;
            if facts.is_some() && manifest.run.keep == Keep::Measures {
                manifest.model.readouts.push(Readout::Statement);
            }
        }
        let mut replies = Vec::new();
        if let Some(personas) = &manifest.personas {
            let contexts = persona::load(personas, &concepts)?;
            contexts.add_items(&mut set, &concepts, profile, &wanted.parameters, ruler)?;
            replies = contexts.replies;
            if !manifest.model.readouts.contains(&Readout::ResponseMean) {
                manifest.model.readouts.push(Readout::ResponseMean);
                set.keep_responses_of_contexts();
            }
        }
        let causal = manifest.causal.as_ref().map(|wanted| choices::load(wanted, &concepts, profile)).transpose()?;
        causal.iter().try_for_each(|asked| asked.add_items(&mut set, &concepts, &wanted.parameters, ruler))?;
        Ok(Self { concepts, set, causal, replies })
    }

    /// What is read behind conversations, by the folder of its sheets.
    ///
    /// # Errors
    /// See [`Talks::new`].
    pub(super) fn talks(&self, manifest: &Manifest, ruler: &Ruler) -> Result<Vec<(&'static str, Talks)>> {
        let tables = [(talks::CONTEXT, &manifest.context, false), (talks::REPLAY, &manifest.replay, true)];
        let checkpoints: Vec<&str> = manifest.checkpoints.iter().map(|spec| spec.id.as_str()).collect();
        let read = |(folder, wanted, controls): (&'static str, &Option<Talk>, bool)| {
            let wanted = wanted.as_ref()?;
            let read = Talks::new(wanted, controls, &self.concepts, &self.replies, &manifest.concepts.parameters, &checkpoints, ruler);
            Some(read.map(|talks| (folder, talks)))
        };
        let talks = tables.into_iter().filter_map(read).collect::<Result<Vec<_>>>()?;
        talks.iter().flat_map(|(_, talks)| &talks.left_out).for_each(|why| tracing::warn!("{why}"));
        Ok(talks)
    }

    /// What conversations begin with; `None` without `[conversation]`.
    ///
    /// # Errors
    /// See [`Asker::new`] and [`conversation::Prepared::new`].
    pub(super) fn conversation(&self, manifest: &Manifest, ruler: &Ruler) -> Result<Option<conversation::Prepared>> {
        let Some(wanted) = &manifest.conversation else { return Ok(None) };
        let asker = Asker::new(&wanted.talk, &self.concepts, &self.replies, &manifest.concepts.parameters, ruler)?;
        conversation::Prepared::new(wanted, &asker, ruler).map(Some)
    }
}

/// What another profile would cost for each checkpoint.
pub struct Other {
    pub items: usize,
    pub nodes: usize,
    pub store_bytes: usize,
}

impl Job {
    /// The full profile, with all that it asks by itself; `None` where it is the manifest's.
    ///
    /// # Errors
    /// As for the manifest's own items.
    pub fn in_full(&self, config: &DecoderConfig) -> Result<Option<Other>> {
        if self.manifest.concepts.profile == Profile::Full {
            return Ok(None);
        }
        let mut manifest = self.manifest.clone();
        manifest.model.readouts.retain(|readout| *readout != Readout::Statement);
        manifest.concepts = manifest.concepts.in_full();
        let Prompts { set, .. } = Prompts::of(&mut manifest, &self.ruler)?;
        let texts: Vec<Vec<i64>> = set.prompts.iter().flat_map(|prompt| prompt.texts()).collect();
        let layers = manifest.model.layers.resolve(config.n_layers)?;
        let request = Self::request_of(&manifest, &set, &layers, self.sizing());
        Ok(Some(Other { items: set.items.len(), nodes: Forest::new(&texts).len(), store_bytes: request.bytes(config.d_model as usize) }))
    }
}
