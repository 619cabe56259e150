//! Random values of single types, as the texts that their input functions take.

use std::fmt::Write;

use fastrand::Rng;

/// What texts are made of: whatever some form has to quote or escape.
const PIECES: [&str; 28] = [
    "a", "B", "0", " ", "  ", "\"", "'", "\\", "\\\\", ",", ";", "{", "}", "(", ")", "[", "]",
    "=>", "NULL", "null", "\n", "\t", "\r", "\u{1}", "\u{7f}", "é", "漢", "😀",
];

/// What a server accepts depends on it here and there.
#[derive(Clone, Copy)]
pub struct Server {
    /// The major version.
    pub version: u32,
}

impl Server {
    /// A value of a type, by its name in `pg_type`, or by the name and modifiers of a column; none
    /// where there is no such type here.
    pub fn value(self, name: &str, random: &mut Rng) -> Option<String> {
        self.text(name, random)
            .or_else(|| number(name, random))
            .or_else(|| self.time(name, random))
            .or_else(|| geometry(name, random))
            .or_else(|| document(name, random))
            .or_else(|| object_name(name, random))
            .or_else(|| of_the_system(name, random))
            .or_else(|| of_an_extension(name, random))
    }

    fn text(self, name: &str, random: &mut Rng) -> Option<String> {
        Some(match name {
            "text" | "varchar" | "bpchar" | "refcursor" => text(random),
            "bpchar(5)" => characters(random, 5),
            "varchar(7)" => characters(random, 7),
            // The server cuts what is too long, in the middle of a character before 18.
            "name" => characters(random, 15),
            // A byte of its own, which is no UTF-8 by itself before 16.
            "char" => match random.u8(..) {
                high @ 128.. if self.version >= 16 => format!("\\{high:o}"),
                0 | 128.. => String::new(),
                low => char::from(low).to_string(),
            },
            "bytea" => {
                let mut text = "\\x".to_owned();
                for _ in 0..length(random) {
                    let _ = write!(text, "{:02x}", random.u8(..));
                }
                text
            }
            "bit" | "varbit" => {
                let count = length(random);
                bits(random, count)
            }
            "bit(5)" => bits(random, 5),
            "varbit(9)" => {
                let most = random.usize(0..=9);
                bits(random, most)
            }
            "bool" => chosen(random, &["t", "f"]),
            "uuid" => uuid::Uuid::from_u128(random.u128(..)).to_string(),
            _ => return None,
        })
    }

    fn time(self, name: &str, random: &mut Rng) -> Option<String> {
        Some(match name {
            "date" => match random.u8(..) {
                0..20 => chosen(
                    random,
                    &["infinity", "-infinity", "4713-11-24 BC", "0001-12-31 BC", "5874897-12-30"],
                ),
                _ => date(random),
            },
            "time" | "time(2)" => time(random),
            "timetz" => format!("{}{}", time(random), zone(random)),
            "timestamp" | "timestamp(3)" => match random.u8(..) {
                0..10 => chosen(random, &["infinity", "-infinity"]),
                10..20 => chosen(random, &["4714-11-24 00:00:00 BC", "294276-12-31 23:59:59.9994"]),
                _ => format!("{} {}", date_of_timestamp(random), time(random)),
            },
            "timestamptz" => match random.u8(..) {
                0..10 => chosen(random, &["infinity", "-infinity"]),
                10..20 => {
                    chosen(random, &["4714-11-24 00:00:00+00 BC", "294276-12-31 23:59:59.999999Z"])
                }
                _ => format!("{} {}{}", date_of_timestamp(random), time(random), zone(random)),
            },
            "interval" | "interval(2)" => self.interval(random),
            _ => return None,
        })
    }

    fn interval(self, random: &mut Rng) -> String {
        match random.u8(..) {
            0..10 if self.version >= 17 => chosen(random, &["infinity", "-infinity"]),
            0..20 => chosen(
                random,
                &[
                    "0",
                    "-178956970 years -8 mons -2147483648 days",
                    "178956970 years 7 mons 2147483647 days 2147483646:59:59.99",
                    "-0.000001 s",
                ],
            ),
            _ => {
                let mut text = String::new();
                for unit in ["years", "mons", "days", "hours", "mins"] {
                    if random.bool() {
                        let _ = write!(text, "{} {unit} ", random.i32(-1_000..1_000));
                    }
                }
                let _ = write!(text, "{} s", f64::from(random.i32(-10_000_000..10_000_000)) / 1e5);
                text
            }
        }
    }
}

/// One of these.
pub fn chosen(random: &mut Rng, of: &[&str]) -> String {
    random.choice(of).expect("there are some").to_string()
}

/// A text with all that has to be escaped somewhere; some are long, some empty.
pub fn text(random: &mut Rng) -> String {
    let count = if random.u8(..) == 0 { 3_000 } else { random.usize(0..8) };
    let mut text = String::new();
    for _ in 0..count {
        match random.u8(..) {
            0..40 => text.push(random.char('\u{1}'..=char::MAX)),
            _ => text.push_str(&chosen(random, &PIECES)),
        }
    }
    text
}

/// A text of so many characters at most.
fn characters(random: &mut Rng, most: usize) -> String {
    text(random).chars().take(most).collect()
}

fn length(random: &mut Rng) -> usize {
    if random.u8(..) == 0 { 3_000 } else { random.usize(0..12) }
}

fn bits(random: &mut Rng, count: usize) -> String {
    (0..count).map(|_| if random.bool() { '1' } else { '0' }).collect()
}

fn number(name: &str, random: &mut Rng) -> Option<String> {
    Some(match name {
        "int2" => extreme(random, i64::from(i16::MIN), i64::from(i16::MAX)),
        "int4" => extreme(random, i64::from(i32::MIN), i64::from(i32::MAX)),
        "int8" => extreme(random, i64::MIN, i64::MAX),
        "oid" | "xid" | "cid" => extreme(random, 0, i64::from(u32::MAX)),
        "xid8" => random.u64(..).to_string(),
        "float4" => match random.u8(..) {
            0..40 => {
                chosen(random, &["-0", "NaN", "Infinity", "-Infinity", "1e-45", "3.4028235e38"])
            }
            _ => format!("{:e}", f32::from_bits(random.u32(..))).replace("inf", "Infinity"),
        },
        "float8" => float8(random),
        "numeric" => numeric(random),
        "numeric(12,3)" => format!("{}.{:03}", random.i32(..) / 10, random.u16(..1_000)),
        "money" => match random.u8(..) {
            0..20 => chosen(random, &["-92233720368547758.08", "92233720368547758.07", "0"]),
            _ => format!("{}.{:02}", random.i32(..), random.u8(..100)),
        },
        _ => return None,
    })
}

fn extreme(random: &mut Rng, least: i64, most: i64) -> String {
    match random.u8(..) {
        0..20 => least.to_string(),
        20..40 => most.to_string(),
        40..60 => 0_i64.clamp(least, most).to_string(),
        _ => random.i64(least..=most).to_string(),
    }
}

fn float8(random: &mut Rng) -> String {
    match random.u8(..) {
        0..30 => chosen(random, &["-0", "0", "NaN", "Infinity", "-Infinity"]),
        30..60 => chosen(random, &["5e-324", "-1.7976931348623157e308", "9007199254740993", "0.1"]),
        _ => format!("{:e}", f64::from_bits(random.u64(..))).replace("inf", "Infinity"),
    }
}

fn numeric(random: &mut Rng) -> String {
    let digits =
        |random: &mut Rng, count| -> String { (0..count).map(|_| random.digit(10)).collect() };
    match random.u8(..) {
        0..20 => chosen(random, &["NaN", "Infinity", "-Infinity"]),
        20..30 => chosen(random, &["0", "-0.0", "0.000", "1e30", "-1e-30"]),
        30 => format!("9{}.{}", digits(random, 131_071), digits(random, 3)),
        31 => format!("0.{}", digits(random, 16_383)),
        _ => {
            let (whole, fraction) = (random.usize(0..40), random.usize(0..40));
            let sign = if random.bool() { "-" } else { "" };
            format!("{sign}0{}.{}", digits(random, whole), digits(random, fraction))
        }
    }
}

fn date(random: &mut Rng) -> String {
    let year = match random.u8(..) {
        0..20 => random.u32(1..200),
        20..40 => random.u32(9_990..300_000),
        _ => random.u32(1_800..2_200),
    };
    let era = if random.u8(..) < 10 && year < 4_000 { " BC" } else { "" };
    format!("{year:04}-{:02}-{:02}{era}", random.u8(1..=12), random.u8(1..=28))
}

/// The range of timestamps is smaller, and the era comes last.
fn date_of_timestamp(random: &mut Rng) -> String {
    let date = date(random);
    let year = random.u32(200_000..294_000);
    if date.ends_with("BC") || date.len() > 10 { format!("{year}-02-28") } else { date }
}

fn time(random: &mut Rng) -> String {
    match random.u8(..) {
        0..10 => chosen(random, &["00:00:00", "24:00:00", "23:59:59.999999"]),
        _ => {
            let fraction = random.u32(..1_000_000);
            let seconds = (random.u8(..24), random.u8(..60), random.u8(..60));
            let (hour, minute, second) = seconds;
            format!("{hour:02}:{minute:02}:{second:02}.{fraction:06}")
        }
    }
}

fn zone(random: &mut Rng) -> String {
    chosen(random, &["+00", "Z", "+05:30", "-08", "+15:59:59", "-15:59:59"])
}

fn finite(random: &mut Rng) -> String {
    match random.u8(..) {
        0..20 => chosen(random, &["-0", "1e300", "-1e-300", "0.1"]),
        _ => (f64::from(random.i32(-100_000..100_000)) / 128.).to_string(),
    }
}

fn point(random: &mut Rng) -> String {
    format!("({},{})", finite(random), finite(random))
}

fn points(random: &mut Rng) -> String {
    let count = random.usize(1..4);
    (0..count).map(|_| point(random)).collect::<Vec<_>>().join(",")
}

fn geometry(name: &str, random: &mut Rng) -> Option<String> {
    Some(match name {
        "point" if random.u8(..) < 20 => "(NaN,-Infinity)".to_owned(),
        "point" => point(random),
        "lseg" => format!("[{},{}]", point(random), point(random)),
        "path" if random.bool() => format!("[{}]", points(random)),
        "path" | "polygon" => format!("({})", points(random)),
        "box" => format!("{},{}", point(random), point(random)),
        "line" => format!("{{{},1,{}}}", finite(random), finite(random)),
        "circle" => format!("<{},{}>", point(random), random.u16(..)),
        _ => return None,
    })
}

/// JSON as people and programs write it. Never null as a whole: that looks like SQL's.
fn json(random: &mut Rng, depth: usize, strings: &[&str]) -> String {
    let space = |random: &mut Rng| chosen(random, &["", " ", "\n\t"]);
    let count = random.usize(0..4);
    match random.u8(0..if depth == 0 { 4 } else { 6 }) {
        0 => chosen(random, &["0", "-1.50", "1e2", "12345678901234567890.123456789"]),
        1 => chosen(random, &["true", "false"]),
        2 | 3 => chosen(random, strings),
        4 => {
            let element = |_| match random.u8(..4) {
                0 => "null".to_owned(),
                _ => space(random) + &json(random, depth - 1, strings),
            };
            format!("[{}]", (0..count).map(element).collect::<Vec<_>>().join(","))
        }
        _ => {
            let member = |_| {
                let (name, value) = (chosen(random, strings), json(random, depth - 1, strings));
                format!("{}{name}{}:{value}", space(random), space(random))
            };
            format!("{{{}}}", (0..count).map(member).collect::<Vec<_>>().join(","))
        }
    }
}

const JSON_STRINGS: [&str; 7] =
    ["\"\"", "\"a\"", "\"é😀\"", "\"\\u00e9\\n\"", "\"\\\"\\\\\\/\"", "\"{,}\"", "\"null\""];

fn document(name: &str, random: &mut Rng) -> Option<String> {
    Some(match name {
        "jsonb" => json(random, 3, &JSON_STRINGS),
        // What only json keeps: characters that are none.
        "json" => {
            let mut strings = JSON_STRINGS.to_vec();
            strings.extend(["\"\\u0000\"", "\"\\ud83d\\ude00\""]);
            json(random, 3, &strings)
        }
        "xml" => chosen(
            random,
            &[
                "<a b=\"1\">é &amp; ü<!-- \" --></a>",
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?><a/>",
                "<?xml version=\"1.0\" standalone=\"yes\"?><a>,{}\n</a>",
                "text, and <b/>",
                "",
            ],
        ),
        "jsonpath" => chosen(
            random,
            &[
                "$",
                "strict $.\"a b\"[*] ? (@.\"c\" > 1.50 && @ like_regex \"^x\\\\\\\\\")",
                "$[0 to last]",
            ],
        ),
        "tsvector" => {
            let count = random.usize(0..5);
            let word = |_| {
                let word = text(random).chars().take(20).collect::<String>();
                let word = word.replace('\\', "\\\\").replace('\'', "''");
                let (position, weight) = (random.u16(1..16_000), chosen(random, &["A", "B", ""]));
                if word.is_empty() {
                    "x".to_owned()
                } else {
                    format!("'{word}':{position}{weight}")
                }
            };
            (0..count).map(word).collect::<Vec<_>>().join(" ")
        }
        "tsquery" => chosen(
            random,
            &["", "'a'", "!'a b' & ('c''d':*AB | 'e\\\\f')", "'a' <-> 'b' <3> 'c'", "'\"'"],
        ),
        _ => return None,
    })
}

/// What has the name of something else: the test's tables and roles, and what is always there.
fn object_name(name: &str, random: &mut Rng) -> Option<String> {
    let names: &[&str] = match name {
        "regproc" => &["now", "pg_sleep", "-", "4294967295"],
        "regprocedure" => &["lower(text)", "abs(integer)", "-", "4000000000"],
        "regoper" => &["|/", "||/", "0"],
        "regoperator" => &["+(integer,integer)", "-(NONE,bigint)", "0"],
        "regclass" => &["pg_class", "\"Odd \"\"name\"\"\"", "\"Odd schema\".t", "-", "4000000000"],
        "regtype" => &["timestamp with time zone", "\"char\"", "integer[]", "mood", "-"],
        "regcollation" => &["\"C\"", "\"default\"", "-"],
        "regconfig" => &["english", "simple", "-"],
        "regdictionary" => &["english_stem", "simple", "-"],
        "regnamespace" => &["public", "pg_catalog", "\"Odd schema\"", "-"],
        "regrole" => &["postgres", "pg_monitor", "\"Odd role\"", "-"],
        "aclitem" => &["postgres=r/postgres", "=arwdDxt*/postgres", "\"Odd role\"=U/postgres"],
        _ => return None,
    };
    Some(chosen(random, names))
}

fn of_the_system(name: &str, random: &mut Rng) -> Option<String> {
    let numbers = |random: &mut Rng| {
        let count = random.usize(0..6);
        (0..count).map(|_| random.u16(..30_000).to_string()).collect::<Vec<_>>().join(" ")
    };
    Some(match name {
        "int2vector" | "oidvector" => numbers(random),
        "tid" => format!("({},{})", random.u32(..), random.u16(..)),
        "pg_lsn" => format!("{:X}/{:X}", random.u32(..), random.u32(..)),
        "txid_snapshot" | "pg_snapshot" => {
            let least = random.u32(1..);
            format!("{least}:{}:{least},{}", u64::from(least) + 9, u64::from(least) + 4)
        }
        "macaddr" | "macaddr8" => {
            let count = if name == "macaddr" { 6 } else { 8 };
            let octets = (0..count).map(|_| format!("{:02x}", random.u8(..)));
            octets.collect::<Vec<_>>().join(":")
        }
        "inet" if random.bool() => {
            let address = std::net::Ipv6Addr::from_bits(random.u128(..));
            format!("{address}/{}", random.u8(..=128))
        }
        "inet" => {
            let address = std::net::Ipv4Addr::from_bits(random.u32(..));
            format!("{address}/{}", random.u8(..=32))
        }
        "cidr" => {
            chosen(random, &["10.0.0.0/8", "192.168.7.0/24", "1.2.3.4/32", "2001:db8::/32", "::/0"])
        }
        _ => return None,
    })
}

fn of_an_extension(name: &str, random: &mut Rng) -> Option<String> {
    Some(match name {
        "citext" => text(random),
        "ltree" => chosen(random, &["", "a", "Top.Science.Astronomy", "a_1.b2.C"]),
        "lquery" => chosen(random, &["*", "Top.*{0,2}.sport*@.!football|tennis", "a.b"]),
        "ltxtquery" => chosen(random, &["Europe & Russia*@ & !Transportation", "a"]),
        "cube" => format!("({},{}),({},2)", finite(random), finite(random), finite(random)),
        "vector" => format!("[{},{},0.1]", random.i16(..), random.i16(..)),
        _ => return None,
    })
}
