//! Event reports that players posted, into the fold of their viewers' requests. Decides which class a report may be
//! counted for; refuses those of viewers in another class, and more new viewers than a page can have.

use super::fold::{LogFold, content_id};
use crate::cmcd::{Cmcd, records};
use crate::model::{Name, Timestamp};
use crate::viewer::Origin;

/// What a post of event reports may be counted for.
#[derive(Clone, Copy, Debug)]
pub enum Authority<'a> {
    /// Any class: each report for that of its viewer's requests; where there were none for this one, else by the rule.
    Any(Option<&'a str>),
    /// The class of these names alone; a viewer that is in another one is not touched.
    Only(&'a [Name]),
}

/// Who posted.
#[derive(Clone, Copy, Debug)]
pub struct Poster<'a> {
    /// What the post may be counted for.
    pub claim: Authority<'a>,
    /// What is known of the sender, where that is the player itself.
    pub origin: Option<&'a Origin<'a>>,
}

/// Reports of posts left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PostCounts {
    /// Of viewers in another class than the one claimed.
    pub foreign: u64,
    /// Of more new viewers than [`MAX_NEW_VIEWERS`] in one post.
    pub crowded: u64,
}

impl LogFold {
    /// Folds the records of a body that a player posted and that arrived at `at`. `later` gets the records whose class
    /// is not known yet: the line with the viewer's first request may still be on its way.
    pub fn post(&mut self, at: Timestamp, poster: Poster<'_>, body: &[u8], mut later: impl FnMut(&[u8])) {
        let Poster { claim, origin } = poster;
        let mut new_viewers = 0;
        for record in records(body) {
            let Ok(set) = Cmcd::parse(record) else {
                self.dirty.version += 1;
                continue;
            };
            let known = set.sid.and_then(|sid| self.fold.class_of_viewer(sid.raw()));
            let is_new = set.sid.is_some() && known.is_none();
            let class = match (claim, known) {
                (Authority::Only(names), Some(class)) if names.iter().all(|name| name.as_str() != class) => {
                    self.posts.foreign += 1;
                    continue;
                }
                (Authority::Only(names), _) => names.first().map(Name::as_str),
                (Authority::Any(told), _) => told.or_else(|| content_id(&self.rule, &set)),
            };
            new_viewers += usize::from(is_new && class.is_some());
            if is_new && class.is_none() {
                later(record);
            } else if is_new && new_viewers > MAX_NEW_VIEWERS {
                self.posts.crowded += 1;
            } else {
                self.dirty.values += u64::from(set.malformed);
                let player = origin.map(|origin| origin.player.by(set.protocol()));
                let origin = origin.zip(player).map(|(origin, player)| Origin { player, ..*origin });
                self.fold.event(at, class, origin.as_ref(), &set);
            }
        }
    }

    /// What was left out of posts.
    #[must_use]
    pub const fn post_counts(&self) -> PostCounts {
        self.posts
    }
}

/// Most viewers that one post may bring: a page has one player, rarely more.
pub(super) const MAX_NEW_VIEWERS: usize = 4;
