//! Folds CMCD event reports that players post into the fold of their viewers' requests. Decides which class a report
//! may count for: a report for a viewer of another class is refused, and so are more new viewers than one page can
//! have.

use super::fold::LogFold;
use super::rejects::{MAX_NEW_VIEWERS, PostCounts};
use crate::cmcd::{Cmcd, records};
use crate::model::{Name, Timestamp};
use crate::viewer::Origin;

/// Which classes a post of event reports may count for.
#[derive(Clone, Copy, Debug)]
pub enum Authority<'a> {
    /// Any class: each report counts for the class of its viewer's requests; without such requests, for the class given
    /// here, else by the log's class rule.
    Any(Option<&'a str>),
    /// Only the class of these names; a viewer of another class is left alone.
    Only(&'a [Name]),
}

/// The sender of a post.
#[derive(Clone, Copy, Debug)]
pub struct Poster<'a> {
    /// Which classes the post may count for.
    pub authority: Authority<'a>,
    /// Address, region and player of the sender, where the sender is the player itself.
    pub origin: Option<&'a Origin<'a>>,
}

impl LogFold {
    /// Folds the records of a body that a player posted and that arrived at `at`. Records whose class is not known yet
    /// go to `later`: the log line of the viewer's first request may still be on its way.
    pub fn post(&mut self, at: Timestamp, poster: Poster<'_>, body: &[u8], mut later: impl FnMut(&[u8])) {
        let Poster { authority, origin } = poster;
        let mut new_viewers = 0;
        for record in records(body) {
            let Ok(cmcd) = Cmcd::parse(record) else {
                self.line_errors.version += 1;
                continue;
            };
            let known = cmcd.sid.and_then(|sid| self.fold.class_of_viewer(sid.raw()));
            let is_new = cmcd.sid.is_some() && known.is_none();
            let class = match (authority, known) {
                (Authority::Only(names), Some(class)) if names.iter().all(|name| name.as_str() != class) => {
                    self.posts.wrong_session += 1;
                    continue;
                }
                (Authority::Only(names), _) => names.first().map(Name::as_str),
                (Authority::Any(class), _) => class.or_else(|| self.rule.content_id(&cmcd)),
            };
            new_viewers += usize::from(is_new && class.is_some());
            if is_new && class.is_none() {
                later(record);
            } else if is_new && new_viewers > MAX_NEW_VIEWERS {
                self.posts.too_many_viewers += 1;
            } else {
                self.line_errors.values += u64::from(cmcd.malformed);
                let player = origin.map(|origin| origin.player.by(cmcd.protocol()));
                let origin = origin.zip(player).map(|(origin, player)| Origin { player, ..*origin });
                self.fold.event(at, class, origin.as_ref(), &cmcd);
            }
        }
    }

    /// How many reports of posts were left out.
    #[must_use]
    pub const fn post_counts(&self) -> PostCounts {
        self.posts
    }
}
