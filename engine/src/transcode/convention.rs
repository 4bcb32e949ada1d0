//! What a method without an annotation answers to, by its name (GW-202): POST to a collection creates, GET of an item gets,
//! GET of a collection lists or searches, PUT and PATCH of an item update, DELETE of an item deletes. `ListOrders` lists
//! `/orders`, `GetOrder` gets `/orders/{id}`. What has another name, or no field that names the item, has no path.

use super::schema::{HttpRule, Kind, Method, Schema, Service, Shape};

/// The bindings of one method; none for most names.
pub(super) fn rules(schema: &Schema, service: &Service, method: &Method) -> Vec<HttpRule> {
    let Some((verb, noun)) = parted(&method.name) else {
        return Vec::new();
    };
    let short = service.name.rsplit('.').next().unwrap_or_default();
    let noun = if noun.is_empty() {
        short.strip_suffix("Service").unwrap_or(short)
    } else {
        noun
    };
    let collection = plural(&kebab(noun));
    let rule = |verb: &str, path: String, body: &str| HttpRule {
        verb: verb.into(),
        path: path.into(),
        body: body.into(),
        response_body: Box::default(),
    };
    let singular = singular(noun);
    let item = || item(schema, method, &singular).map(|field| format!("/{collection}/{{{field}}}"));
    match verb {
        "Create" => vec![rule("POST", format!("/{collection}"), "*")],
        "List" => vec![rule("GET", format!("/{collection}"), "")],
        "Search" => {
            let lists =
                |other: &Method| parted(&other.name).is_some_and(|(verb, _)| verb == "List");
            let path = if service.methods.iter().any(lists) {
                format!("/{collection}:search")
            } else {
                format!("/{collection}")
            };
            vec![rule("GET", path, "")]
        }
        "Get" => item()
            .map(|path| rule("GET", path, ""))
            .into_iter()
            .collect(),
        "Delete" => item()
            .map(|path| rule("DELETE", path, ""))
            .into_iter()
            .collect(),
        _ => item()
            .map(|path| vec![rule("PUT", path.clone(), "*"), rule("PATCH", path, "*")])
            .unwrap_or_default(),
    }
}

fn parted(name: &str) -> Option<(&'static str, &str)> {
    ["Create", "Get", "List", "Search", "Update", "Delete"]
        .into_iter()
        .find_map(|verb| {
            let noun = name.strip_prefix(verb)?;
            noun.chars()
                .next()
                .is_none_or(char::is_uppercase)
                .then_some((verb, noun))
        })
}

/// The request's field that names the item: `id`, `order_id` or `name`.
fn item<'s>(schema: &'s Schema, method: &Method, noun: &str) -> Option<&'s str> {
    let message = schema.message(method.input);
    let own = format!("{}_id", kebab(noun).replace('-', "_"));
    ["id", &own, "name"].into_iter().find_map(|name| {
        let field = &message.fields[message.by_key(name)?];
        let fits = field.shape == Shape::One && !matches!(field.kind, Kind::Message(_));
        fits.then_some(&*field.name)
    })
}

fn kebab(name: &str) -> String {
    let mut text = String::with_capacity(name.len() + 2);
    for (place, letter) in name.char_indices() {
        if letter.is_uppercase() && place > 0 {
            text.push('-');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}

fn plural(word: &str) -> String {
    let consonant = |letter: Option<char>| letter.is_some_and(|letter| !"aeiou".contains(letter));
    match word.strip_suffix('y') {
        _ if word.ends_with("ss") || word.ends_with('x') || word.ends_with("ch") => {
            format!("{word}es")
        }
        _ if word.ends_with('s') => word.to_owned(),
        Some(stem) if consonant(stem.chars().last()) => format!("{stem}ies"),
        _ => format!("{word}s"),
    }
}

fn singular(word: &str) -> String {
    match (word.strip_suffix("ies"), word.strip_suffix('s')) {
        (Some(stem), _) => format!("{stem}y"),
        (_, Some(stem)) if !stem.ends_with('s') => stem.to_owned(),
        _ => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_written_as_paths_are() {
        for (name, path) in [
            ("Order", "orders"),
            ("OrderItem", "order-items"),
            ("Category", "categories"),
            ("Day", "days"),
            ("Address", "addresses"),
            ("Products", "products"),
            ("Box", "boxes"),
        ] {
            assert_eq!(plural(&kebab(name)), path);
        }
        assert_eq!(parted("GetOrder"), Some(("Get", "Order")));
        assert_eq!(parted("Getaway"), None);
        assert_eq!(parted("List"), Some(("List", "")));
        assert_eq!(
            (singular("Orders"), singular("Categories")),
            ("Order".into(), "Category".into())
        );
    }
}
