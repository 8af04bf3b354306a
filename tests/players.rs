//! The ways in that face players, as browsers and strangers use them: answers, limits, what other pages may do.

use super::cli::Daemon;

#[test]
fn a_page_of_another_origin_may_report_and_a_flood_is_told_when_to_come_again() {
    let daemon =
        Daemon::start_with("[ingest]\nburst = 5\nrate_per_second = 1\norigins = [\"https://school.example\"]\n");
    let preflight = "origin: https://school.example\r\naccess-control-request-method: POST\r\n\
                     access-control-request-headers: content-type,authorization\r\n";
    for _ in 0..10 {
        let (status, head, _) = daemon.ask_with("OPTIONS", "/v1/beacon", preflight, "");
        assert_eq!(status, 200, "{head}");
        assert!(head.contains("access-control-allow-origin: https://school.example"), "{head}");
        assert!(head.contains("access-control-allow-methods: get,post"), "{head}");
        assert!(head.contains("content-type,authorization"), "{head}");
    }
    let (_, head, _) =
        daemon.ask_with("OPTIONS", "/v1/beacon", &preflight.replace("school.example", "other.example"), "");
    assert!(!head.contains("access-control-allow-origin"), "{head}");
    let own = "origin: https://school.example\r\n";
    let answers: Vec<_> = (0..8).map(|_| daemon.ask_with("POST", "/v1/beacon", own, "{}")).collect();
    assert!(answers[..5].iter().all(|(status, ..)| *status == 404), "closed, but let in: {answers:?}");
    let (status, head, body) = answers.iter().find(|(status, ..)| *status == 429).expect("a flood is stopped");
    assert!(head.contains("retry-after: ") && body.contains("\"too_often\""), "{status} {head} {body}");
    assert!(head.contains("access-control-allow-origin: https://school.example"), "the page must see why: {head}");
    // Others are not touched: a trusted proxy tells for whom it asks.
    let other = "x-forwarded-for: 192.0.2.7\r\n";
    assert_eq!(daemon.ask_with("POST", "/v1/beacon", other, "{}").0, 404);
    assert_eq!(daemon.ask("GET", "/livez", "").0, 200);
    let page = daemon.ask("GET", "/metrics", "").1;
    assert!(page.contains("reason=\"source_rate\""), "{page}");
}
