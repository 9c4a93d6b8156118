//! What a server says of a collection (RFC 4918, 9.1 and 14).

use quick_xml::NsReader;
use quick_xml::events::Event;
use quick_xml::name::{Namespace, ResolveResult};
use reqwest::Url;

/// The longest answer: about 30,000 entries.
pub(super) const MOST_BYTES: usize = 16 << 20;

pub(super) const QUERY: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\
    <propfind xmlns=\"DAV:\"><prop><resourcetype/><getcontentlength/></prop></propfind>";

const DAV: Namespace<'static> = Namespace(b"DAV:");

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Its name; none: it is what was asked about.
    pub(super) name: Option<String>,
    /// None: it is a collection.
    pub(super) bytes: Option<u64>,
}

/// As it is being read.
#[derive(Default)]
struct Answer {
    href: String,
    length: String,
    collection: bool,
}

/// Which text is being read.
#[derive(Clone, Copy)]
enum In {
    Href,
    Length,
    Other,
}

/// Reads the answer about `url`: it, and what is directly below. No entity is resolved but those of XML itself.
pub(super) fn read(xml: &[u8], url: &Url) -> Result<Vec<Found>, String> {
    let asked = decoded(url.path());
    let asked = asked.trim_end_matches('/');
    let answers = answers(xml)?;
    let (mut found, mut itself) = (Vec::new(), false);
    for Answer { href, length, collection } in answers {
        let path = path(&href, url);
        let path = path.trim_end_matches('/');
        let bytes = if collection { None } else { length.trim().parse().ok() };
        if path == asked {
            itself = true;
            found.push(Found { name: None, bytes });
            continue;
        }
        let name = path.strip_prefix(asked).and_then(|rest| rest.strip_prefix('/'));
        if let Some(name) = name.filter(|name| !name.contains('/') && (collection || bytes.is_some())) {
            found.push(Found { name: Some(name.to_owned()), bytes });
        }
    }
    // An empty list would be believed.
    if itself {
        Ok(found)
    } else {
        Err(format!("the list is not of {asked}: name the address that the server itself uses"))
    }
}

fn answers(xml: &[u8]) -> Result<Vec<Answer>, String> {
    let wrong = |error: quick_xml::Error| format!("the list is no XML: {error}");
    let mut reader = NsReader::from_reader(xml);
    let (mut answers, mut answer, mut inside) = (Vec::new(), Answer::default(), In::Other);
    loop {
        let (namespace, event) = reader.read_resolved_event().map_err(wrong)?;
        let dav = namespace == ResolveResult::Bound(DAV);
        match event {
            Event::Start(element) | Event::Empty(element) if dav => match element.local_name().as_ref() {
                b"response" => answer = Answer::default(),
                b"href" if answer.href.is_empty() => inside = In::Href,
                b"getcontentlength" => inside = In::Length,
                b"collection" => answer.collection = true,
                _ => inside = In::Other,
            },
            Event::End(element) => {
                inside = In::Other;
                if dav && element.local_name().as_ref() == b"response" {
                    answers.push(std::mem::take(&mut answer));
                }
            }
            Event::Text(text) => {
                let text = text.decode().map_err(|error| format!("the list is no text: {error}"))?;
                answer.take(inside, &text);
            }
            Event::CData(text) => {
                let text = text.decode().map_err(|error| format!("the list is no text: {error}"))?;
                answer.take(inside, &text);
            }
            Event::GeneralRef(name) => {
                let resolved = name.resolve_char_ref().map_err(wrong)?;
                let known = std::str::from_utf8(&name).ok().and_then(quick_xml::escape::resolve_xml_entity);
                match (resolved, known) {
                    (Some(letter), _) => answer.take(inside, letter.encode_utf8(&mut [0; 4])),
                    (None, Some(text)) => answer.take(inside, text),
                    (None, None) => return Err("the list has an entity that is not XML's own".to_owned()),
                }
            }
            Event::DocType(_) => return Err("the list declares a document type".to_owned()),
            Event::Eof => return Ok(answers),
            _ => {}
        }
    }
}

impl Answer {
    fn take(&mut self, inside: In, text: &str) {
        match inside {
            In::Href => self.href.push_str(text),
            In::Length => self.length.push_str(text),
            In::Other => {}
        }
    }
}

/// The path of a reference, which may be a whole address.
fn path(href: &str, url: &Url) -> String {
    url.join(href.trim()).map(|url| decoded(url.path())).unwrap_or_default()
}

/// With what is written as `%20` as it is.
fn decoded(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, more @ ..] = rest {
        let code = more.get(..2).filter(|_| *first == b'%').and_then(|digits| hex::decode(digits).ok());
        match code {
            Some(code) => {
                bytes.extend(code);
                rest = &more[2..];
            }
            None => {
                bytes.push(*first);
                rest = more;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url() -> Url {
        Url::parse("https://cloud.example/dav/back%20ups/default").unwrap()
    }

    fn entry(name: Option<&str>, bytes: Option<u64>) -> Found {
        Found { name: name.map(str::to_owned), bytes }
    }

    #[test]
    fn answers_of_servers_are_read() {
        let nextcloud = br#"<?xml version="1.0"?>
            <d:multistatus xmlns:d="DAV:" xmlns:oc="http://owncloud.org/ns">
             <d:response><d:href>/dav/back%20ups/default/</d:href><d:propstat><d:prop>
              <d:resourcetype><d:collection/></d:resourcetype></d:prop><d:status>HTTP/1.1 200 OK</d:status></d:propstat>
              <d:propstat><d:prop><d:getcontentlength/></d:prop><d:status>HTTP/1.1 404 Not Found</d:status></d:propstat>
             </d:response>
             <d:response><d:href>/dav/back%20ups/default/shop/</d:href><d:propstat><d:prop>
              <d:resourcetype><d:collection/></d:resourcetype></d:prop></d:propstat></d:response>
             <d:response><d:href>https://cloud.example/dav/back%20ups/default/a&amp;b%2f&#x63;.txt</d:href><d:propstat><d:prop>
              <d:resourcetype/><d:getcontentlength>12</d:getcontentlength><oc:size>99</oc:size></d:prop></d:propstat>
             </d:response>
             <d:response><d:href>/dav/back%20ups/default/x.json</d:href><d:propstat><d:prop>
              <d:resourcetype/><d:getcontentlength>7</d:getcontentlength></d:prop></d:propstat></d:response>
             <d:response><d:href>/dav/back%20ups/default/shop/deeper</d:href></d:response>
             <d:response><d:href>/dav/other</d:href></d:response>
            </d:multistatus>"#;
        let found = read(nextcloud, &url()).unwrap();
        // A name with a slash in it is none.
        assert_eq!(found, [entry(None, None), entry(Some("shop"), None), entry(Some("x.json"), Some(7))]);
    }

    #[test]
    fn what_is_no_answer_is_said() {
        let doctype = br#"<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>"#;
        let entity = br#"<multistatus xmlns="DAV:"><response><href>&e;</href></response></multistatus>"#;
        let other = br#"<multistatus xmlns="DAV:"><response><href>/elsewhere/</href></response></multistatus>"#;
        let foreign =
            br#"<multistatus xmlns="other:"><response><href>/dav/back%20ups/default</href></response></multistatus>"#;
        for (xml, why) in [
            (&doctype[..], "document type"),
            (entity, "entity"),
            (other, "is not of /dav/back ups/default"),
            (foreign, "is not of"),
            (b"<html><body>login</body></html>", "is not of"),
            (b"<a></b>", "no XML"),
            (b"", "is not of"),
        ] {
            let error = read(xml, &url()).unwrap_err();
            assert!(error.contains(why), "{why}: {error}");
        }
    }
}
