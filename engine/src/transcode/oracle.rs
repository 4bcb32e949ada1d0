//! The codec against another one: random messages of a type with every kind of field, read and written by `prost-reflect`
//! (dynamic messages, serde) and by ours. Both must mean the same. Tests only.

use proptest::prelude::*;
use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions,
};
use serde_json::{Map, Value, json};

use super::bounds::Rules;
use super::schema::{MessageId, Schema};
use super::{decode, descriptor, encode};

/// A descriptor set of one of the files in `tests/protos`.
pub(super) fn set(file: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/protos");
    let mut compiler = protox::Compiler::new([folder]).expect("a folder");
    compiler
        .include_imports(true)
        .open_file(file)
        .expect("it compiles");
    // Unlike the types of `prost`, this keeps annotations.
    compiler.encode_file_descriptor_set()
}

struct Both {
    schema: Schema,
    id: MessageId,
    theirs: MessageDescriptor,
}

fn both() -> Both {
    let set = set("everything.proto");
    let pool = DescriptorPool::decode(&*set).expect("a descriptor set");
    let schema = descriptor::read(&set).expect("a descriptor set");
    Both {
        id: schema.find("test.everything.All").expect("it is there"),
        theirs: pool
            .get_message_by_name("test.everything.All")
            .expect("it is there"),
        schema,
    }
}

impl Both {
    /// What the other one makes of a JSON text.
    fn read(&self, json: &str) -> Option<DynamicMessage> {
        let mut deserializer = serde_json::Deserializer::from_str(json);
        let options = DeserializeOptions::new().deny_unknown_fields(true);
        let message = DynamicMessage::deserialize_with_options(
            self.theirs.clone(),
            &mut deserializer,
            &options,
        )
        .ok()?;
        deserializer.end().ok()?;
        Some(message)
    }

    fn encoded(&self, json: &str) -> Result<Vec<u8>, encode::Unfit> {
        let mut out = Vec::new();
        encode::message(
            &self.schema,
            &Rules::default(),
            self.id,
            json.as_bytes(),
            &mut out,
        )?;
        Ok(out)
    }

    fn decoded(&self, bytes: &[u8], rules: &Rules) -> Result<String, decode::Unreadable> {
        let mut out = Vec::new();
        decode::message(&self.schema, rules, self.id, bytes, &mut out)?;
        Ok(String::from_utf8(out).expect("JSON is UTF-8"))
    }

    fn written(&self, message: &DynamicMessage, rules: &Rules) -> Option<Value> {
        let options = SerializeOptions::new()
            .skip_default_fields(!rules.defaults)
            .use_proto_field_name(rules.proto_names)
            .use_enum_numbers(rules.enum_numbers);
        message
            .serialize_with_options(serde_json::value::Serializer, &options)
            .ok()
    }
}

/// A key in one of its two spellings, and a value that most often fits.
fn entry(depth: u32) -> BoxedStrategy<(String, Value)> {
    let whole = prop_oneof![
        any::<i32>().prop_map(|n| json!(n)),
        any::<i64>().prop_map(|n| json!(n)),
        any::<u64>().prop_map(|n| json!(n.to_string())),
        any::<i64>().prop_map(|n| json!(n.to_string())),
        (-5i32..5).prop_map(|n| json!(f64::from(n))),
        Just(json!(0)),
    ];
    let float = prop_oneof![
        any::<f64>()
            .prop_filter("JSON has no others, and -0 is 0 to them", |n| n.is_normal())
            .prop_map(|n| json!(n)),
        any::<f32>()
            .prop_filter("JSON has no others, and -0 is 0 to them", |n| n.is_normal())
            .prop_map(|n| json!(n)),
        prop::sample::select(vec!["NaN", "Infinity", "-Infinity", "1.5"]).prop_map(|n| json!(n)),
    ];
    let text = prop_oneof![any::<String>(), Just(String::new()), "[a-zA-Z0-9+/]{0,9}"]
        .prop_map(|n| json!(n));
    let bytes = any::<Vec<u8>>().prop_map(|n| json!(crate::exchange::base64::padded(&n)));
    let colour = prop_oneof![
        prop::sample::select(vec![
            "RED",
            "GREEN",
            "NEGATIVE",
            "COLOUR_UNSPECIFIED",
            "NONE"
        ])
        .prop_map(|n| json!(n)),
        (-4i32..4).prop_map(|n| json!(n)),
    ];
    let time = (-62_135_596_800i64..253_402_300_799, 0..1_000_000_000i32)
        .prop_map(|(seconds, nanos)| json!(super::known::written_timestamp(seconds, nanos)));
    let span = (0i64..315_576_000_000, 0..1_000_000_000i32)
        .prop_map(|(seconds, nanos)| json!(super::known::written_duration(seconds, nanos)));
    let mask = prop::collection::vec("[a-z]{1,3}([A-Z][a-z]{0,2}){0,2}(\\.[a-z]{1,3})?", 0..3)
        .prop_map(|paths| json!(paths.join(",")));
    let tree = || {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            any::<f64>()
                .prop_filter("JSON has no others", |n| n.is_finite())
                .prop_map(|n| json!(n)),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..3).prop_map(|m| json!(m)),
            ]
        })
    };
    let key = |names: &[&'static str]| prop::sample::select(names.to_vec()).prop_map(str::to_owned);
    let of = |names: &[&'static str], values: BoxedStrategy<Value>| (key(names), values).boxed();
    let list = |values: BoxedStrategy<Value>| {
        prop::collection::vec(values, 0..4)
            .prop_map(Value::from)
            .boxed()
    };
    let (whole, float, text, bytes, colour) = (
        whole.boxed(),
        float.boxed(),
        text.boxed(),
        bytes.boxed(),
        colour.boxed(),
    );
    let (time, span, mask) = (time.boxed(), span.boxed(), mask.boxed());
    let map = |keys: BoxedStrategy<String>, values: BoxedStrategy<Value>| {
        prop::collection::btree_map(keys, values, 0..3)
            .prop_map(|m| json!(m))
            .boxed()
    };
    let mut all = vec![
        of(&["aDouble", "a_double", "aFloat", "doubleValue", "floatValue"], float.clone()),
        of(&["anInt32", "an_int64", "aUint32", "aUint64", "aSint32", "aSint64", "aFixed32", "aFixed64", "aSfixed32",
             "aSfixed64", "maybeInt32", "number", "int64Value", "uint64Value", "int32Value", "farAway", "far_away"], whole.clone()),
        of(&["aBool", "boolValue"], any::<bool>().prop_map(Value::from).boxed()),
        of(&["aString", "a_string", "maybeString", "text", "stringValue", "otherName", "renamed"], text.clone()),
        of(&["someBytes", "bytesValue"], bytes.clone()),
        of(&["someBytes"], text.clone()),
        of(&["aColour", "maybeColour"], colour.clone()),
        of(&["doubles", "floats"], list(float.clone())),
        of(&["int32s", "int64s", "uint64s", "sint32s", "fixed32s", "sfixed64s", "unpacked"], list(whole.clone())),
        of(&["bools"], list(any::<bool>().prop_map(Value::from).boxed())),
        of(&["strings", "stringValues"], list(text.clone())),
        of(&["byteses"], list(bytes.clone())),
        of(&["colours"], list(colour.clone())),
        of(&["times"], list(time.clone())),
        of(&["aTime"], time),
        of(&["aSpan"], span),
        of(&["aMask"], mask),
        of(&["aValue"], tree().boxed()),
        of(&["aList"], list(tree().boxed())),
        of(&["aStruct", "values"], map(any::<String>().boxed(), tree().boxed())),
        of(&["anEmpty"], Just(json!({})).boxed()),
        of(&["byString"], map(any::<String>().boxed(), text.clone())),
        of(&["byUint64"], map(any::<u64>().prop_map(|n| n.to_string()).boxed(), float)),
        of(&["byBool"], map(any::<bool>().prop_map(|n| n.to_string()).boxed(), colour)),
        of(&["bySint64"], map(any::<i64>().prop_map(|n| n.to_string()).boxed(), bytes)),
        of(&["nothing"], Just(Value::Null).boxed()),
        of(&["aDouble", "aString", "nested", "alls", "aTime", "boolValue", "number"], Just(Value::Null).boxed()),
        of(&["anAny"], (text, whole).prop_map(|(text, number)| json!({
            "@type": "type.googleapis.com/test.everything.All", "aString": text, "anInt64": number,
        })).boxed()),
        of(&["anAny"], any::<bool>().prop_map(|flag| json!({
            "value": flag, "@type": "type.googleapis.com/google.protobuf.BoolValue",
        })).boxed()),
        of(&["unknown", "aString", "anInt32", "aBool", "doubles", "nested", "aTime"], tree().boxed()),
    ];
    if depth > 0 {
        all.push(of(&["nested", "message"], object(depth - 1)));
        all.push(of(&["alls"], list(object(depth - 1))));
        all.push(of(
            &["byInt32"],
            map(
                any::<i32>().prop_map(|n| n.to_string()).boxed(),
                object(depth - 1),
            ),
        ));
    }
    proptest::strategy::Union::new(all).boxed()
}

fn object(depth: u32) -> BoxedStrategy<Value> {
    prop::collection::vec(entry(depth), 0..5)
        .prop_map(|entries| Value::Object(entries.into_iter().collect::<Map<_, _>>()))
        .boxed()
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn json_means_the_same_to_both(value in object(2)) {
        let both = both();
        let json = value.to_string();
        match (both.encoded(&json), both.read(&json)) {
            (Ok(bytes), Some(theirs)) => {
                let ours = DynamicMessage::decode(both.theirs.clone(), &*bytes).expect("protobuf");
                // Compared as JSON, where NaN is NaN.
                let (ours, theirs) = (both.written(&ours, &Rules::default()), both.written(&theirs, &Rules::default()));
                let (ours, theirs) = (ours.unwrap_or_default(), theirs.unwrap_or_default());
                prop_assert!(same(&ours, &theirs), "{}: {} {}", json, ours, theirs);
            }
            (Err(_), None) => {}
            (Ok(_), None) => prop_assert!(is_more(&json), "only we take {}", json),
            (Err(error), Some(_)) => prop_assert!(is_less(&error), "only they take {}: {:?}", json, error),
        }
    }

    #[test]
    fn messages_are_written_the_same_by_both(value in object(2), defaults: bool, proto_names: bool, enum_numbers: bool) {
        let both = both();
        let Ok(bytes) = both.encoded(&value.to_string()) else { return Ok(()) };
        let theirs = DynamicMessage::decode(both.theirs.clone(), &*bytes).expect("protobuf");
        let rules = Rules { defaults, proto_names, enum_numbers, ..Rules::default() };
        let Some(wanted) = both.written(&theirs, &rules) else { return Ok(()) };
        // As we encode, in the order of the JSON, and as they do, in the order of the numbers.
        for bytes in [&bytes, &theirs.encode_to_vec()] {
            let ours = both.decoded(bytes, &rules).expect("JSON");
            let ours: Value = serde_json::from_str(&ours).expect("valid JSON");
            prop_assert!(same(&ours, &wanted), "{} {}", ours, wanted);
        }
    }

    #[test]
    fn no_bytes_make_either_way_panic(bytes: Vec<u8>, flips in prop::collection::vec((any::<u16>(), any::<u8>()), 0..4), value in object(2)) {
        let both = both();
        let _any = both.decoded(&bytes, &Rules::default());
        let _any = descriptor::read(&bytes);
        let mut bytes = both.encoded(&value.to_string()).unwrap_or_default();
        let mut text = value.to_string().into_bytes();
        for (at, with) in flips {
            for bytes in [&mut bytes, &mut text] {
                let length = bytes.len().max(1);
                if let Some(byte) = bytes.get_mut(usize::from(at) % length) {
                    *byte = with;
                }
            }
        }
        let theirs = DynamicMessage::decode(both.theirs.clone(), &*bytes);
        if let Ok(json) = both.decoded(&bytes, &Rules::default()) {
            serde_json::from_str::<Value>(&json).expect("what we write is JSON");
            prop_assert!(theirs.is_ok() || json.len() < 4096, "we read what they do not");
        }
        let mut out = Vec::new();
        if encode::message(&both.schema, &Rules::default(), both.id, &text, &mut out).is_ok() {
            DynamicMessage::decode(both.theirs.clone(), &*out).expect("what we write is protobuf");
        }
    }
}

/// The deepest that a document may allow, in debug builds, on half of a worker's stack.
#[test]
fn the_deepest_message_fits_a_workers_stack() {
    let deepest = std::thread::Builder::new().stack_size(1 << 20).spawn(|| {
        let both = both();
        let rules = Rules {
            max_depth: 200,
            ..Rules::default()
        };
        for (open, close) in [
            ("{\"nested\":", "}"),
            ("{\"alls\":[", "]}"),
            ("{\"byInt32\":{\"1\":", "}}"),
        ] {
            let levels = if close == "}" { 199 } else { 99 };
            let json = format!("{}{{}}{}", open.repeat(levels), close.repeat(levels));
            let mut bytes = Vec::new();
            encode::message(&both.schema, &rules, both.id, json.as_bytes(), &mut bytes)
                .expect("it fits");
            both.decoded(&bytes, &rules).expect("it fits");
            let json = format!(
                "{}{{}}{}",
                open.repeat(levels + 2),
                close.repeat(levels + 2)
            );
            let beyond =
                encode::message(&both.schema, &rules, both.id, json.as_bytes(), &mut bytes);
            assert_eq!(beyond, Err(encode::Unfit::Beyond(super::Bound::Depth)));
        }
        let json = format!("{{\"aValue\":{}1{}}}", "[".repeat(198), "]".repeat(198));
        let mut bytes = Vec::new();
        encode::message(&both.schema, &rules, both.id, json.as_bytes(), &mut bytes)
            .expect("it fits");
    });
    deepest.expect("a thread").join().expect("no overflow");
}

/// 0 and 0.0 are the same, and so are floats that differ in their last bit: theirs are read quickly, ours exactly. Whole
/// numbers of 64 bits are strings, so they are compared to the digit.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            let (one, other) = (
                one.as_f64().unwrap_or(f64::NAN),
                other.as_f64().unwrap_or(f64::NAN),
            );
            one == other
                || (one - other).abs() < 1e-37
                || ((one - other) / one).abs() < 1e-7 && one as f32 == other as f32
                || ((one - other) / one).abs() < 1e-15
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            // To them -0 is 0, and left out.
            let absent = |value: &Value| value.as_f64() == Some(0.0);
            let fits = |(key, value): (&String, &Value)| match other.get(key) {
                Some(other) => same(value, other),
                None => absent(value),
            };
            one.iter().all(fits) && other.keys().all(|key| one.contains_key(key))
        }
        // They write a wrapped NaN as null.
        (Value::String(word), Value::Null) => matches!(&**word, "NaN" | "Infinity" | "-Infinity"),
        _ => one == other,
    }
}

/// `TOLLGATE_FUZZ_CASES` for each.
fn cases() -> ProptestConfig {
    let wanted = std::env::var("TOLLGATE_FUZZ_CASES")
        .ok()
        .and_then(|text| text.parse().ok());
    ProptestConfig {
        cases: wanted.unwrap_or(512),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Where we take more than they do, and mean to.
fn is_more(_json: &str) -> bool {
    false
}

/// Where they take more than we do, and we mean not to: a field in both spellings.
fn is_less(error: &encode::Unfit) -> bool {
    match error {
        encode::Unfit::Faults(faults) => {
            faults.iter().all(|fault| fault.why == "it is there twice")
        }
        encode::Unfit::Beyond(_) => false,
    }
}
