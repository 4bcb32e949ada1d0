//! Which binding answers a method and a path: a tree over segments. A literal goes before `*`, `*` before `**`; with the
//! same segments a verb goes before none. Whatever the order in the descriptors, the same request finds the same binding.

use http::Method;
use smallvec::SmallVec;

use super::template::{Segment, Template};

#[derive(Debug, Default)]
pub(super) struct Table {
    root: Node,
}

#[derive(Debug, Default)]
struct Node {
    /// By text, ascending.
    literals: Vec<(Box<str>, Node)>,
    one: Option<Box<Node>>,
    ends: Vec<End>,
    /// With `**` here.
    rests: Vec<End>,
}

#[derive(Debug)]
struct End {
    verb: Option<Box<str>>,
    method: Method,
    binding: usize,
}

/// Where each segment of a path begins and ends.
pub(super) type Segments = SmallVec<[(u32, u32); 12]>;

#[derive(Debug)]
pub(super) enum Found {
    /// Which, the path's segments, and how long the path is without its verb.
    Binding(usize, Segments, usize),
    /// The path is there with these methods.
    Other(Vec<Method>),
    Nothing,
}

impl Table {
    /// `Err`: the number of the binding that has the same method and path already.
    pub(super) fn insert(
        &mut self,
        template: &Template,
        method: Method,
        binding: usize,
    ) -> Result<(), usize> {
        let mut node = &mut self.root;
        let mut is_rest = false;
        for segment in &template.segments {
            match segment {
                Segment::Literal(text) => {
                    let at = match node.literals.binary_search_by(|(known, _)| known.cmp(text)) {
                        Ok(at) => at,
                        Err(at) => {
                            node.literals.insert(at, (text.clone(), Node::default()));
                            at
                        }
                    };
                    node = &mut node.literals[at].1;
                }
                Segment::One => node = node.one.get_or_insert_default(),
                Segment::Rest => is_rest = true,
            }
        }
        let ends = if is_rest {
            &mut node.rests
        } else {
            &mut node.ends
        };
        if let Some(known) = ends
            .iter()
            .find(|end| end.method == method && end.verb == template.verb)
        {
            return Err(known.binding);
        }
        ends.push(End {
            verb: template.verb.clone(),
            method,
            binding,
        });
        Ok(())
    }

    pub(super) fn find(&self, method: &Method, path: &str) -> Found {
        let Some(inner) = path.strip_prefix('/') else {
            return Found::Nothing;
        };
        let cut = |inner: &str| {
            let mut segments = Segments::new();
            let mut at = 1u32;
            for part in inner.split('/') {
                let end = at + part.len() as u32;
                segments.push((at, end));
                at = end + 1;
            }
            segments
        };
        let mut others: Vec<Method> = Vec::new();
        let last = path.rfind('/').unwrap_or(0);
        if let Some(colon) = path[last..].rfind(':').map(|at| at + last) {
            let (bare, verb) = (&path[..colon], &path[colon + 1..]);
            let segments = cut(&bare[1..]);
            if let Some(binding) =
                look(&self.root, bare, &segments, Some(verb), method, &mut others)
            {
                return Found::Binding(binding, segments, colon);
            }
        }
        let segments = cut(inner);
        match look(&self.root, path, &segments, None, method, &mut others) {
            Some(binding) => Found::Binding(binding, segments, path.len()),
            None if others.is_empty() => Found::Nothing,
            None => {
                others.sort_by(|one, other| one.as_str().cmp(other.as_str()));
                others.dedup();
                Found::Other(others)
            }
        }
    }
}

fn look(
    node: &Node,
    path: &str,
    rest: &[(u32, u32)],
    verb: Option<&str>,
    method: &Method,
    others: &mut Vec<Method>,
) -> Option<usize> {
    let mut end = |ends: &[End]| {
        let mut found = None;
        for end in ends.iter().filter(|end| end.verb.as_deref() == verb) {
            if end.method == *method {
                found = Some(end.binding);
            } else {
                others.push(end.method.clone());
            }
        }
        found
    };
    let Some(((from, to), behind)) = rest.split_first() else {
        return end(&node.ends).or_else(|| end(&node.rests));
    };
    let rests = end(&node.rests);
    let text = &path[*from as usize..*to as usize];
    if let Ok(at) = node
        .literals
        .binary_search_by(|(known, _)| (**known).cmp(text))
        && let Some(binding) = look(&node.literals[at].1, path, behind, verb, method, others)
    {
        return Some(binding);
    }
    if let Some(one) = &node.one
        && !text.is_empty()
        && let Some(binding) = look(one, path, behind, verb, method, others)
    {
        return Some(binding);
    }
    rests
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(templates: &[(&str, &str)]) -> Table {
        let mut table = Table::default();
        for (place, (method, template)) in templates.iter().enumerate() {
            let template = Template::parse(template).unwrap();
            table
                .insert(&template, method.parse().unwrap(), place)
                .unwrap();
        }
        table
    }

    fn found(table: &Table, method: &str, path: &str) -> Option<usize> {
        match table.find(&method.parse().unwrap(), path) {
            Found::Binding(binding, ..) => Some(binding),
            Found::Other(_) | Found::Nothing => None,
        }
    }

    #[test]
    fn the_most_specific_binding_answers_whatever_the_order() {
        let templates = [
            ("GET", "/v1/{name=**}"),
            ("GET", "/v1/{name=shelves/*}"),
            ("GET", "/v1/shelves/all"),
            ("POST", "/v1/{name=shelves/*}:merge"),
            ("GET", "/v1/{name=shelves/*}:merge"),
            ("DELETE", "/v1/{name=shelves/*}"),
            ("GET", "/v1/{a}/{b}/tail"),
        ];
        let wanted = [
            ("GET", "/v1/shelves/all", Some(2)),
            ("GET", "/v1/shelves/1", Some(1)),
            ("GET", "/v1/shelves/1/2", Some(0)),
            ("GET", "/v1/shelves/all/tail", Some(6)),
            ("GET", "/v1", Some(0)),
            ("GET", "/v1/", Some(0)),
            ("POST", "/v1/shelves/1:merge", Some(3)),
            ("GET", "/v1/shelves/1:merge", Some(4)),
            ("GET", "/v1/shelves/a:b", Some(1)),
            ("GET", "/v1/shelves:x/1", Some(0)),
            ("DELETE", "/v1/shelves/1", Some(5)),
            ("PUT", "/v1/shelves/1", None),
            ("GET", "/v2", None),
        ];
        let mut order = templates.to_vec();
        for _ in 0..templates.len() {
            let table = table(&order);
            for (method, path, place) in wanted {
                let place = place.map(|place: usize| {
                    order
                        .iter()
                        .position(|one| *one == templates[place])
                        .unwrap()
                });
                assert_eq!(
                    found(&table, method, path),
                    place,
                    "{method} {path} in {order:?}"
                );
            }
            order.rotate_left(1);
        }
    }

    #[test]
    fn a_path_that_is_there_with_other_methods_names_them() {
        let table = table(&[("GET", "/a/{b}"), ("DELETE", "/a/{b}"), ("GET", "/a/c")]);
        match table.find(&Method::PUT, "/a/c") {
            Found::Other(methods) => assert_eq!(methods, [Method::DELETE, Method::GET]),
            other => panic!("{other:?}"),
        }
        assert!(matches!(table.find(&Method::PUT, "/b"), Found::Nothing));
        assert!(matches!(table.find(&Method::GET, "*"), Found::Nothing));
    }

    #[test]
    fn two_bindings_for_the_same_are_told() {
        let mut table = table(&[("GET", "/a/{b}")]);
        let same = Template::parse("/a/{c}").unwrap();
        assert_eq!(table.insert(&same, Method::GET, 1), Err(0));
    }
}
