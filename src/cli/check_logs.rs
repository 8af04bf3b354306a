//! `liveqos check` on access logs: can each be read, does its last line have the configured form, what is missing in
//! it. Decides what is a failure; a log that nobody has written to yet is none.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use liveqos_core::access_log::{LineError, MAX_LINE};

use crate::intake::access_log::{AccessLogSettings, LogSource, SyslogSocket};

/// What is well with a log, or what is wrong and what to do.
pub(super) fn check(log: &AccessLogSettings) -> Result<String, String> {
    match log.source().map_err(|error| error.to_string())? {
        LogSource::File(path) => file(log, &path),
        LogSource::Syslog(address) => {
            let senders = log.senders().map_err(|error| error.to_string())?;
            match SyslogSocket::bind(&address, senders, MAX_LINE) {
                Ok(_) => Ok("can be bound".to_owned()),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    Ok("is bound already, by the running daemon as it seems".to_owned())
                }
                Err(error) => Err(error.to_string()),
            }
        }
        LogSource::Posts => Ok("posts alone".to_owned()),
    }
}

fn file(log: &AccessLogSettings, path: &Path) -> Result<String, String> {
    let line = last_line(path).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => {
            format!("{error}; let the daemon read it: a drop-in with SupplementaryGroups=adm, where the log is of that group")
        }
        io::ErrorKind::NotFound => format!("{error}; it is read from its first line on when it appears"),
        _ => error.to_string(),
    })?;
    let writable = log.position_file.as_deref().map_or(Ok(()), folder_is_there);
    writable.map_err(|error| format!("position_file: {error}"))?;
    let Some(line) = line else {
        return Ok("can be read; no line in it yet".to_owned());
    };
    let mut fold = log.fold([0, 0]).map_err(|error| error.to_string())?;
    let missing = match fold.parse(&line) {
        Ok(None) => return Ok("can be read; its last line is empty".to_owned()),
        Ok(Some(opened)) => opened.missing(),
        Err(LineError::Form) if log.format.is_empty() => {
            return Err(
                "its last line is no JSON object: write its nginx log_format as format, or let nginx write JSON"
                    .to_owned(),
            );
        }
        Err(LineError::Form) => return Err("its last line is not of the form that format says".to_owned()),
        Err(LineError::Time) => {
            let what = "no instant in its last line: log $msec, $time_iso8601 or $time_local";
            return Err(format!("{what}, and name its key in fields if it is neither \"t\" nor the variable's name"));
        }
        Err(error) => return Err(format!("its last line is {error}")),
    };
    if missing.is_empty() {
        return Ok("can be read, and so can its last line".to_owned());
    }
    Ok(format!("can be read, and so can its last line; not in it: {}", missing.join(", ")))
}

/// The last whole line, where there is one.
fn last_line(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(2 * MAX_LINE as u64)))?;
    let mut end = Vec::new();
    file.read_to_end(&mut end)?;
    let whole = end.iter().rposition(|byte| *byte == b'\n').map_or(0, |index| index);
    let line = end[..whole].rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok((!line.is_empty()).then(|| line.to_vec()))
}

fn folder_is_there(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.map_or(Ok(()), |folder| std::fs::metadata(folder).map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(settings: &str, log: &str) -> Result<String, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("access.log");
        std::fs::write(&path, log).expect("written");
        let mut settings: AccessLogSettings = toml::from_str(settings).expect("toml");
        settings.path = path;
        check(&settings)
    }

    #[test]
    fn it_says_what_is_missing() {
        let full = r#"{"t":1000,"st":200,"b":9,"u":"/hls/c1/7.ts","q":"","ip":"10.0.0.1"}"#;
        assert_eq!(says("", &format!("dirt\n{full}\nhalf")).as_deref(), Ok("can be read, and so can its last line"));
        let lacks = says("", "{\"t\":1000,\"u\":\"/hls/c1/7.ts\"}\n").expect("readable");
        assert!(lacks.contains("status") && lacks.contains("$body_bytes_sent"), "{lacks}");
        assert!(says("", "").expect("no line is well").contains("no line"));
        for (settings, log, hint) in [
            ("", "10.0.0.1 - - [x]\n", "log_format"),
            ("", "{\"u\":\"/x\"}\n", "$msec"),
            ("format = '[$time_local] \"$request\"'", "x\n", "not of the form"),
            ("position_file = '/no/such/folder/p'", "{}\n", "position_file"),
        ] {
            let error = says(settings, log).expect_err("refused");
            assert!(error.contains(hint), "{settings} {log}: {error}");
        }
    }
}
