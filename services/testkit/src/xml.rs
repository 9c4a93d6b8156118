//! XML from paths and values.

use std::collections::BTreeMap;

#[derive(Default)]
struct Node<'a> {
    value: &'a str,
    children: BTreeMap<&'a str, Node<'a>>,
}

/// The document of `fields`, whose paths are parted by dots; a number repeats the element before it, as `Tag.2.Key`. The elements
/// of `least` are there even when nothing is in them.
pub(crate) fn xml(fields: &BTreeMap<String, String>, least: &str) -> String {
    let mut root = Node::default();
    root.at(least);
    for (path, value) in fields {
        root.at(path).value = value;
    }
    let mut text = String::from("<?xml version=\"1.0\"?>");
    root.write(None, &mut text);
    text
}

impl<'a> Node<'a> {
    fn at(&mut self, path: &'a str) -> &mut Self {
        path.split('.').fold(self, |node, name| node.children.entry(name).or_default())
    }

    fn write(&self, name: Option<&str>, text: &mut String) {
        let repeated = !self.children.is_empty() && self.children.keys().all(|key| key.parse::<u32>().is_ok());
        if repeated {
            let mut numbered: Vec<_> = self.children.iter().collect();
            numbered.sort_by_key(|(key, _)| key.parse::<u32>().unwrap_or_default());
            numbered.into_iter().for_each(|(_, child)| child.write(name, text));
            return;
        }
        if let Some(name) = name {
            text.push_str(&format!("<{name}>"));
        }
        text.push_str(&self.value.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;"));
        self.children.iter().for_each(|(name, child)| child.write(Some(name), text));
        if let Some(name) = name {
            text.push_str(&format!("</{name}>"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_repeat_the_element_before_them() {
        let fields = [("A.B.2.C", "<two>"), ("A.B.1.C", "one"), ("A.B.10.C", "ten"), ("A.D.member.1", "x")];
        let fields = fields.map(|(path, value)| (path.to_owned(), value.to_owned())).into();
        assert_eq!(
            xml(&fields, "A.E"),
            "<?xml version=\"1.0\"?><A><B><C>one</C></B><B><C>&lt;two&gt;</C></B><B><C>ten</C></B>\
             <D><member>x</member></D><E></E></A>"
        );
    }
}
