//! Where a log's configuration finds the name of the class that a line belongs to.

use super::class_path::ClassPath;
use super::class_pattern::ClassPattern;
use super::request_target::argument;
use crate::cmcd::Cmcd;

/// Where the class's name is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClassRule {
    /// In the path, as `app/name`; the application given here replaces the path's.
    Path(Option<String>),
    /// In CMCD's content id (`cid`); a request without one by its path.
    ContentId,
    /// In the query argument of this name; a request without one by its path.
    Argument(String),
    /// In the path, by this pattern; a path that does not match belongs to no class.
    Pattern(ClassPattern),
}

impl ClassRule {
    /// The class and the kind of media that `path` names; `None` where it is not media of a class.
    pub(super) fn class_of<'a>(&self, path: &'a str) -> Option<ClassPath<'a>> {
        match self {
            Self::Pattern(pattern) => pattern.read(path),
            _ => ClassPath::of(path),
        }
    }

    /// Appends the class's name, `app/name` where there is an application, to `out`.
    pub(super) fn write_class_name(&self, path: &ClassPath<'_>, cmcd: &Cmcd<'_>, query: &[u8], out: &mut String) {
        let id = match self {
            Self::Path(_) | Self::Pattern(_) => None,
            Self::ContentId => self.content_id(cmcd),
            Self::Argument(name) => std::str::from_utf8(argument(query, name)).ok().filter(|id| !id.is_empty()),
        };
        if let Some(id) = id {
            out.push_str(id);
            return;
        }
        let app = match self {
            Self::Path(Some(app)) | Self::Pattern(ClassPattern { app, .. }) => app,
            _ => path.app,
        };
        out.push_str(app);
        if !app.is_empty() {
            out.push('/');
        }
        out.push_str(path.name);
    }

    /// CMCD's content id (`cid`), where the rule is [`ClassRule::ContentId`].
    pub(super) fn content_id<'a>(&self, cmcd: &Cmcd<'a>) -> Option<&'a str> {
        match self {
            Self::ContentId => std::str::from_utf8(cmcd.cid?.raw()).ok(),
            _ => None,
        }
    }
}
