//! The Helm chart, rendered by a Go-template engine with the few functions of Helm that it uses: what comes out is YAML, of
//! the shape that Kubernetes asks for, and fits the relay that it starts.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking, and its helpers stand outside of test functions"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use gtmpl::{Context, FuncError, Template, Value};
use serde::Deserialize;
use serde_yaml_ng::Value as Yaml;

fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../helm/weft-relay")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(chart().join(name)).unwrap()
}

// --- the functions of Helm, as its documentation says ---

fn value(yaml: &Yaml) -> Value {
    match yaml {
        Yaml::Null => Value::Nil,
        Yaml::Bool(yes) => Value::from(*yes),
        Yaml::Number(number) => Value::from(number.as_i64().expect("only whole numbers")),
        Yaml::String(text) => Value::from(text.as_str()),
        Yaml::Sequence(items) => Value::Array(items.iter().map(value).collect()),
        Yaml::Mapping(map) => Value::Map(map.iter().map(|(k, v)| (k.as_str().unwrap().to_owned(), value(v))).collect()),
        Yaml::Tagged(_) => panic!("no tags"),
    }
}

fn yaml(value: &Value) -> Yaml {
    match value {
        Value::Nil | Value::NoValue => Yaml::Null,
        Value::Bool(yes) => Yaml::Bool(*yes),
        Value::Number(number) => Yaml::from(number.as_i64().unwrap()),
        Value::String(text) => Yaml::String(text.clone()),
        Value::Array(items) => Yaml::Sequence(items.iter().map(yaml).collect()),
        Value::Object(map) | Value::Map(map) => {
            let sorted: BTreeMap<_, _> = map.iter().collect();
            Yaml::Mapping(sorted.into_iter().map(|(k, v)| (Yaml::String(k.clone()), yaml(v))).collect())
        }
        Value::Function(_) => panic!("no functions"),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn quote(args: &[Value]) -> Result<Value, FuncError> {
    Ok(Value::from(format!("{:?}", text(&args[0]))))
}

fn default(args: &[Value]) -> Result<Value, FuncError> {
    let empty = matches!(&args[1], Value::Nil | Value::NoValue) || text(&args[1]).is_empty();
    Ok(if empty { args[0].clone() } else { args[1].clone() })
}

fn join(args: &[Value]) -> Result<Value, FuncError> {
    let Value::Array(items) = &args[1] else { panic!("join takes a list") };
    Ok(Value::from(items.iter().map(text).collect::<Vec<_>>().join(&text(&args[0]))))
}

fn whole(value: &Value) -> i64 {
    let Value::Number(number) = value else { panic!("{value:?} is no number") };
    number.as_i64().expect("only whole numbers")
}

fn add(args: &[Value]) -> Result<Value, FuncError> {
    Ok(Value::from(args.iter().map(whole).sum::<i64>()))
}

fn div(args: &[Value]) -> Result<Value, FuncError> {
    Ok(Value::from(whole(&args[0]) / whole(&args[1])))
}

fn to_yaml(args: &[Value]) -> Result<Value, FuncError> {
    Ok(Value::from(serde_yaml_ng::to_string(&yaml(&args[0])).unwrap().trim_end().to_owned()))
}

fn nindent(args: &[Value]) -> Result<Value, FuncError> {
    let spaces = " ".repeat(text(&args[0]).parse().unwrap());
    Ok(Value::from(text(&args[1]).lines().map(|line| format!("\n{spaces}{line}")).collect::<String>()))
}

// --- rendering ---

/// All objects of the chart, with some values set over the defaults.
fn render(set: &str) -> Vec<Yaml> {
    let mut values: Yaml = serde_yaml_ng::from_str(&read("values.yaml")).unwrap();
    merge(&mut values, serde_yaml_ng::from_str(set).unwrap());
    let chart_yaml: Yaml = serde_yaml_ng::from_str(&read("Chart.yaml")).unwrap();
    let named = |pairs: [(&str, &Yaml); 2]| pairs.map(|(to, from)| (to.to_owned(), value(from)));
    let about = Value::Map(named([("Name", &chart_yaml["name"]), ("AppVersion", &chart_yaml["appVersion"])]).into());
    let release = Value::Map([("Name".to_owned(), Value::from("relay"))].into());
    let context: std::collections::HashMap<String, Value> =
        [("Values".to_owned(), value(&values)), ("Chart".to_owned(), about), ("Release".to_owned(), release)].into();
    let mut objects = Vec::new();
    for folder in ["templates", "templates/tests"] {
        let mut files: Vec<_> =
            std::fs::read_dir(chart().join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        for file in files.into_iter().filter(|file| file.is_file()) {
            let mut template = Template::default();
            let functions = [
                ("quote", quote as gtmpl::Func),
                ("default", default),
                ("join", join),
                ("add", add),
                ("div", div),
                ("toYaml", to_yaml),
                ("nindent", nindent),
            ];
            template.add_funcs(&functions);
            template.parse(std::fs::read_to_string(&file).unwrap()).unwrap_or_else(|e| panic!("{file:?}: {e}"));
            let rendered = template.render(&Context::from(context.clone())).unwrap_or_else(|e| panic!("{file:?}: {e}"));
            for document in serde_yaml_ng::Deserializer::from_str(&rendered) {
                let object = Yaml::deserialize(document).unwrap_or_else(|e| panic!("{file:?}: {e}\n{rendered}"));
                if !object.is_null() {
                    objects.push(object);
                }
            }
        }
    }
    objects
}

fn merge(into: &mut Yaml, from: Yaml) {
    match (into, from) {
        (Yaml::Mapping(into), Yaml::Mapping(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Yaml::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

fn kind<'a>(objects: &'a [Yaml], kind: &str) -> &'a Yaml {
    objects.iter().find(|object| object["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"))
}

const EVERYTHING: &str = include_str!("../../helm/weft-relay/ci/everything-values.yaml");

#[test]
fn the_defaults_are_one_relay_and_everything_is_everything() {
    let kinds = |objects: &[Yaml]| -> Vec<String> {
        let mut kinds: Vec<_> = objects.iter().map(|object| object["kind"].as_str().unwrap().to_owned()).collect();
        kinds.sort();
        kinds
    };
    assert_eq!(kinds(&render("{}")), ["Deployment", "Pod", "Service", "Service"]);
    let all = render(EVERYTHING);
    let expected = [
        "ConfigMap",
        "Deployment",
        "HorizontalPodAutoscaler",
        "Ingress",
        "NetworkPolicy",
        "Pod",
        "PodDisruptionBudget",
        "Service",
        "Service",
        "ServiceMonitor",
    ];
    assert_eq!(kinds(&all), expected);
    for object in &all {
        for field in ["apiVersion", "kind", "metadata"] {
            assert!(!object[field].is_null(), "{object:?}");
        }
        assert!(object["metadata"]["name"].as_str().unwrap().starts_with("relay"));
    }
}

#[test]
fn what_selects_finds_what_it_means() {
    let all = render(EVERYTHING);
    let labels = &kind(&all, "Deployment")["spec"]["template"]["metadata"]["labels"];
    assert_eq!(labels, &kind(&all, "Deployment")["spec"]["selector"]["matchLabels"]);
    assert_eq!(labels, &kind(&all, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"]);
    assert_eq!(labels, &kind(&all, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"]);
    for service in all.iter().filter(|object| object["kind"] == "Service") {
        assert_eq!(labels, &service["spec"]["selector"]);
    }
    // The test's own pod is not among those that are served.
    assert_ne!(kind(&all, "Pod")["metadata"]["labels"]["app.kubernetes.io/name"], labels["app.kubernetes.io/name"]);
    let monitored = kind(&all, "ServiceMonitor")["spec"]["selector"]["matchLabels"].as_mapping().unwrap().clone();
    let fits =
        |service: &&Yaml| monitored.iter().all(|(key, value)| service["metadata"]["labels"].get(key) == Some(value));
    let services: Vec<_> = all.iter().filter(|object| object["kind"] == "Service").filter(fits).collect();
    assert_eq!(services.len(), 1);
    assert_eq!(services[0]["spec"]["ports"][0]["name"], "admin");
    assert_eq!(kind(&all, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"], "relay");
    assert!(kind(&all, "Deployment")["spec"]["replicas"].is_null());
}

/// The variables that the chart sets are options of the relay, with values that it takes; and Kubernetes waits for the goodbye.
#[test]
fn the_relay_takes_what_the_chart_sets() {
    for set in ["{}", "drainMs: 30500", EVERYTHING] {
        let all = render(set);
        let spec = &kind(&all, "Deployment")["spec"]["template"]["spec"];
        let container = &spec["containers"][0];
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], Yaml::Bool(true));
        assert_eq!(spec["securityContext"]["runAsNonRoot"], Yaml::Bool(true));
        let mut relay = Command::new(env!("CARGO_BIN_EXE_weft-relay"));
        let mut drain_ms = 0;
        for variable in container["env"].as_sequence().unwrap() {
            let name = variable["name"].as_str().unwrap();
            let key = "ab".repeat(32);
            let set = match (name, variable["value"].as_str()) {
                // Mounted from the ConfigMap.
                ("WEFT_RELAY_BLOCK_FILE", Some(path)) => {
                    assert_eq!(path, "/etc/weft-relay/blocked");
                    assert!(kind(&all, "ConfigMap")["data"]["blocked"].as_str().unwrap().contains("\n192.0.2.0/24"));
                    continue;
                }
                (_, Some(value)) => value,
                (_, None) => key.as_str(),
            };
            if name == "WEFT_RELAY_DRAIN_MS_MAX" {
                drain_ms = set.parse().unwrap();
            }
            relay.env(name, set);
        }
        let output = relay.args(["--print-config"]).output().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let grace: u64 = spec["terminationGracePeriodSeconds"].as_u64().unwrap();
        assert!(grace * 1000 >= drain_ms + 5_000);
        if set == EVERYTHING {
            for line in [
                "room_peers_max = 100",
                "nats://nats:4222",
                "10.0.0.0/8",
                "did:web:a.example",
                "token_keys = [\"(hidden)\"]",
            ] {
                assert!(printed.contains(line), "{line} is not in {printed}");
            }
        }
    }
}

/// Each set of values in the chart's `ci` folder, and the defaults, rendered into files: `helm/validate.py` holds them against
/// Kubernetes' own schemas. Here: that there is something to hold.
#[test]
fn every_set_of_values_is_rendered_to_be_validated() {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("chart");
    // Left over from another state of the chart.
    drop(std::fs::remove_dir_all(&out));
    std::fs::create_dir_all(&out).unwrap();
    let mut sets: Vec<(String, String)> = vec![("defaults".to_owned(), "{}".to_owned())];
    for entry in std::fs::read_dir(chart().join("ci")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().strip_suffix("-values.yaml").unwrap().to_owned();
        sets.push((name, std::fs::read_to_string(&path).unwrap()));
    }
    assert!(sets.len() >= 4, "{sets:?}");
    for (name, set) in sets {
        let objects = render(&set);
        assert!(objects.len() >= 4, "{name}");
        let documents: Vec<String> = objects.iter().map(|object| serde_yaml_ng::to_string(object).unwrap()).collect();
        std::fs::write(out.join(format!("{name}.yaml")), documents.join("---\n")).unwrap();
    }
}

#[test]
fn the_schema_of_the_values_knows_each_of_them() {
    let schema: serde_json::Value = serde_json::from_str(&read("values.schema.json")).unwrap();
    let values: Yaml = serde_yaml_ng::from_str(&read("values.yaml")).unwrap();
    fn check(schema: &serde_json::Value, values: &Yaml, at: &str) {
        let Some(properties) = schema["properties"].as_object() else { return };
        for (key, value) in values.as_mapping().unwrap() {
            let key = key.as_str().unwrap();
            check(
                properties.get(key).unwrap_or_else(|| panic!("the schema lacks {at}{key}")),
                value,
                &format!("{at}{key}."),
            );
        }
    }
    check(&schema, &values, "");
}
