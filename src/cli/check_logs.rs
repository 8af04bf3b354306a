//! `liveqos check` for access logs: whether each can be read, whether its last line has the configured format, and
//! which fields are missing. A log without any line is not a failure.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use liveqos_core::access_log::{LineError, MAX_LINE};

use crate::intake::access_log::{AccessLogSettings, LogSource, SyslogSocket};

/// The state of a log, or what is wrong and how to fix it.
pub(super) fn check(log: &AccessLogSettings) -> Result<String, String> {
    match log.source().map_err(|error| error.to_string())? {
        LogSource::File(path) => file(log, &path),
        LogSource::Syslog(address) => {
            let senders = log.senders().map_err(|error| error.to_string())?;
            match SyslogSocket::bind(&address, senders, MAX_LINE) {
                Ok(_) => Ok("can be bound".to_owned()),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    Ok("is already bound, probably by the running daemon".to_owned())
                }
                Err(error) => Err(error.to_string()),
            }
        }
        LogSource::Posts => Ok("event reports only".to_owned()),
    }
}

fn file(log: &AccessLogSettings, path: &Path) -> Result<String, String> {
    let line = last_line(path).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => {
            format!("{error}; give the daemon access, for example by a drop-in with SupplementaryGroups=adm if the log belongs to that group")
        }
        io::ErrorKind::NotFound => format!("{error}; if it appears later, it is read from its first line"),
        _ => error.to_string(),
    })?;
    let writable = log.position_file.as_deref().map_or(Ok(()), folder_is_there);
    writable.map_err(|error| format!("position_file: {error}"))?;
    let Some(line) = line else {
        return Ok("readable; it contains no line yet".to_owned());
    };
    let mut fold = log.fold([0, 0]).map_err(|error| error.to_string())?;
    let missing = match fold.parse(&line) {
        Ok(None) => return Ok("readable; its last line is empty".to_owned()),
        Ok(Some(opened)) => opened.missing(),
        Err(LineError::Form) if log.format.is_empty() => {
            return Err(
                "its last line is not a JSON object: set format to nginx's log_format, or let nginx write JSON"
                    .to_owned(),
            );
        }
        Err(LineError::Form) => return Err("its last line does not match format".to_owned()),
        Err(LineError::Time) => {
            let what = "its last line contains no timestamp: log $msec, $time_iso8601 or $time_local";
            return Err(format!("{what}, and name its key in fields if it is neither \"t\" nor the variable's name"));
        }
        Err(error) => return Err(format!("its last line is {error}")),
    };
    if missing.is_empty() {
        return Ok("readable, its last line is valid".to_owned());
    }
    Ok(format!("readable, its last line is valid; missing fields: {}", missing.join(", ")))
}

/// The last complete line, if there is one.
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

    fn check_log(settings: &str, log: &str) -> Result<String, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("access.log");
        std::fs::write(&path, log).expect("written");
        let mut settings: AccessLogSettings = toml::from_str(settings).expect("toml");
        settings.path = path;
        check(&settings)
    }

    #[test]
    fn missing_fields_and_invalid_lines_are_reported() {
        let full = r#"{"t":1000,"st":200,"b":9,"u":"/hls/c1/7.ts","q":"","ip":"10.0.0.1"}"#;
        assert_eq!(check_log("", &format!("dirt\n{full}\nhalf")).as_deref(), Ok("readable, its last line is valid"));
        let lacks = check_log("", "{\"t\":1000,\"u\":\"/hls/c1/7.ts\"}\n").expect("readable");
        assert!(lacks.contains("status") && lacks.contains("$body_bytes_sent"), "{lacks}");
        assert!(check_log("", "").expect("an empty log is fine").contains("no line"));
        for (settings, log, hint) in [
            ("", "10.0.0.1 - - [x]\n", "log_format"),
            ("", "{\"u\":\"/x\"}\n", "$msec"),
            ("format = '[$time_local] \"$request\"'", "x\n", "does not match format"),
            ("position_file = '/no/such/folder/p'", "{}\n", "position_file"),
        ] {
            let error = check_log(settings, log).expect_err("refused");
            assert!(error.contains(hint), "{settings} {log}: {error}");
        }
    }
}
