//! The rules as text, in the words of `nft` and of `iptables-restore`. Pure: what is installed depends on the settings and on
//! nothing else, so that installing twice is installing once.
//!
//! Inbound, on what comes from elsewhere: ports that the sidecar listens on, or that are excluded, are left alone. Outbound, on
//! what is dialled here: the sidecar's user is left alone, and so is what does not leave this machine. All other TCP is
//! redirected.

use std::fmt::Write;
use std::net::IpAddr;

use tollgate_config::Cidr;

use super::Settings;

/// The table of `nft`, and the begin of the chains' names of `iptables`. Nothing else in the kernel is touched.
pub(super) const TABLE: &str = "tollgate";
pub(super) const CHAINS: [&str; 2] = ["TOLLGATE_INBOUND", "TOLLGATE_OUTBOUND"];
/// Where the kernel meets each of the chains, and what else the rule there says.
pub(super) const HOOKS: [(&str, &str); 2] = [("PREROUTING", CHAINS[0]), ("OUTPUT", CHAINS[1])];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) const BOTH: [Family; 2] = [Family::V4, Family::V6];

    fn has(self, block: &Cidr) -> bool {
        match block.address {
            IpAddr::V4(_) => self == Family::V4,
            IpAddr::V6(_) => self == Family::V6,
        }
    }
}

/// One transaction that puts these rules in the place of any that were there.
pub(super) fn nft(settings: &Settings) -> String {
    let Settings {
        inbound_port,
        outbound_port,
        uid,
        ..
    } = settings;
    let mut text = nft_removal();
    let mut line = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    line(&format!("table inet {TABLE} {{"));
    line("  chain inbound {");
    line("    type nat hook prerouting priority -100; policy accept;");
    line("    iifname \"lo\" return");
    line(&format!(
        "    tcp dport {{ {} }} return",
        listed(inbound_ports(settings))
    ));
    line(&format!("    meta l4proto tcp redirect to :{inbound_port}"));
    line("  }");
    line("  chain outbound {");
    line("    type nat hook output priority -100; policy accept;");
    line("    oifname \"lo\" return");
    line(&format!("    meta skuid {uid} return"));
    let ports = sorted(settings.exclude_outbound_ports.clone());
    if !ports.is_empty() {
        line(&format!("    tcp dport {{ {} }} return", listed(ports)));
    }
    for (family, word) in [(Family::V4, "ip"), (Family::V6, "ip6")] {
        for block in blocks(settings, family) {
            line(&format!("    {word} daddr {block} return"));
        }
    }
    line(&format!(
        "    meta l4proto tcp redirect to :{outbound_port}"
    ));
    line("  }");
    line("}");
    text
}

/// Takes away what is there, and nothing when nothing is: a table that was just made can always be deleted.
pub(super) fn nft_removal() -> String {
    format!("table inet {TABLE}\ndelete table inet {TABLE}\n")
}

/// For `iptables-restore --noflush`: naming a chain empties it. `hooked` tells which of `HOOKS` lead to our chains already.
pub(super) fn iptables(settings: &Settings, family: Family, hooked: [bool; 2]) -> String {
    let [inbound, outbound] = CHAINS;
    let mut text = "*nat\n".to_owned();
    let mut line = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    for chain in CHAINS {
        line(format!(":{chain} - [0:0]"));
    }
    line(format!("-A {inbound} -i lo -j RETURN"));
    for port in inbound_ports(settings) {
        line(format!("-A {inbound} -p tcp --dport {port} -j RETURN"));
    }
    line(format!(
        "-A {inbound} -p tcp -j REDIRECT --to-ports {}",
        settings.inbound_port
    ));
    line(format!("-A {outbound} -o lo -j RETURN"));
    line(format!(
        "-A {outbound} -m owner --uid-owner {} -j RETURN",
        settings.uid
    ));
    for port in sorted(settings.exclude_outbound_ports.clone()) {
        line(format!("-A {outbound} -p tcp --dport {port} -j RETURN"));
    }
    for block in blocks(settings, family) {
        line(format!("-A {outbound} -d {block} -j RETURN"));
    }
    line(format!(
        "-A {outbound} -p tcp -j REDIRECT --to-ports {}",
        settings.outbound_port
    ));
    for ((hook, chain), hooked) in HOOKS.into_iter().zip(hooked) {
        if !hooked {
            line(format!("-A {hook} -p tcp -j {chain}"));
        }
    }
    line("COMMIT".to_owned());
    text
}

/// For `iptables-restore --noflush`: takes these rules and chains away, as `iptables -S` listed them; `None`: there is
/// nothing of ours.
pub(super) fn iptables_removal(listed: &str) -> Option<String> {
    let ours = |line: &&str| {
        CHAINS
            .iter()
            .any(|chain| line.split(' ').any(|word| word == *chain))
    };
    let mut text = "*nat\n".to_owned();
    let mut any = false;
    for line in listed.lines().filter(ours) {
        any = true;
        // What leads to our chains goes by itself, what is in them with them.
        if let Some(rule) = line.strip_prefix("-A ")
            && !CHAINS.iter().any(|chain| rule.starts_with(chain))
        {
            let _infallible = writeln!(text, "-D {rule}");
        }
    }
    let made = |chain: &&&str| listed.lines().any(|line| line == format!("-N {chain}"));
    for chain in CHAINS.iter().filter(made) {
        let _infallible = writeln!(text, "-F {chain}");
    }
    for chain in CHAINS.iter().filter(made) {
        let _infallible = writeln!(text, "-X {chain}");
    }
    text.push_str("COMMIT\n");
    any.then_some(text)
}

/// Which of `HOOKS` lead to our chains, as `iptables -S` listed them.
pub(super) fn hooked(listed: &str) -> [bool; 2] {
    HOOKS.map(|(hook, chain)| {
        let rule = format!("-A {hook} -p tcp -j {chain}");
        listed.lines().any(|line| line == rule)
    })
}

fn inbound_ports(settings: &Settings) -> Vec<u16> {
    let mut ports = settings.exclude_inbound.clone();
    ports.extend([settings.inbound_port, settings.outbound_port]);
    sorted(ports)
}

fn sorted(mut ports: Vec<u16>) -> Vec<u16> {
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn listed(ports: Vec<u16>) -> String {
    let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
    ports.join(", ")
}

fn blocks(settings: &Settings, family: Family) -> Vec<String> {
    let blocks = settings.exclude_cidrs.iter();
    let blocks = blocks.filter(|block| family.has(block));
    blocks
        .map(|block| format!("{}/{}", block.address, block.prefix))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            inbound_port: 15006,
            outbound_port: 15001,
            uid: 1337,
            exclude_inbound: vec![22, 15000, 22],
            exclude_outbound_ports: vec![3306],
            exclude_cidrs: vec![
                Cidr {
                    address: [10, 9, 0, 0].into(),
                    prefix: 16,
                },
                Cidr {
                    address: "2001:db8::".parse().unwrap(),
                    prefix: 32,
                },
            ],
        }
    }

    #[test]
    fn nft_gets_one_transaction_that_begins_with_an_empty_table() {
        assert_eq!(
            nft(&settings()),
            "table inet tollgate\n\
             delete table inet tollgate\n\
             table inet tollgate {\n\
             \x20 chain inbound {\n\
             \x20   type nat hook prerouting priority -100; policy accept;\n\
             \x20   iifname \"lo\" return\n\
             \x20   tcp dport { 22, 15000, 15001, 15006 } return\n\
             \x20   meta l4proto tcp redirect to :15006\n\
             \x20 }\n\
             \x20 chain outbound {\n\
             \x20   type nat hook output priority -100; policy accept;\n\
             \x20   oifname \"lo\" return\n\
             \x20   meta skuid 1337 return\n\
             \x20   tcp dport { 3306 } return\n\
             \x20   ip daddr 10.9.0.0/16 return\n\
             \x20   ip6 daddr 2001:db8::/32 return\n\
             \x20   meta l4proto tcp redirect to :15001\n\
             \x20 }\n\
             }\n"
        );
    }

    #[test]
    fn iptables_gets_the_same_for_each_family_and_its_hooks_once() {
        let v4 = iptables(&settings(), Family::V4, [false, false]);
        assert_eq!(
            v4,
            "*nat\n\
             :TOLLGATE_INBOUND - [0:0]\n\
             :TOLLGATE_OUTBOUND - [0:0]\n\
             -A TOLLGATE_INBOUND -i lo -j RETURN\n\
             -A TOLLGATE_INBOUND -p tcp --dport 22 -j RETURN\n\
             -A TOLLGATE_INBOUND -p tcp --dport 15000 -j RETURN\n\
             -A TOLLGATE_INBOUND -p tcp --dport 15001 -j RETURN\n\
             -A TOLLGATE_INBOUND -p tcp --dport 15006 -j RETURN\n\
             -A TOLLGATE_INBOUND -p tcp -j REDIRECT --to-ports 15006\n\
             -A TOLLGATE_OUTBOUND -o lo -j RETURN\n\
             -A TOLLGATE_OUTBOUND -m owner --uid-owner 1337 -j RETURN\n\
             -A TOLLGATE_OUTBOUND -p tcp --dport 3306 -j RETURN\n\
             -A TOLLGATE_OUTBOUND -d 10.9.0.0/16 -j RETURN\n\
             -A TOLLGATE_OUTBOUND -p tcp -j REDIRECT --to-ports 15001\n\
             -A PREROUTING -p tcp -j TOLLGATE_INBOUND\n\
             -A OUTPUT -p tcp -j TOLLGATE_OUTBOUND\n\
             COMMIT\n"
        );
        let v6 = iptables(&settings(), Family::V6, [true, true]);
        assert!(v6.contains("-d 2001:db8::/32 -j RETURN"), "{v6}");
        assert!(
            !v6.contains("10.9.0.0") && !v6.contains("-A OUTPUT"),
            "{v6}"
        );
    }

    #[test]
    fn what_iptables_lists_as_ours_is_removed_and_nothing_else() {
        let listed = "-P PREROUTING ACCEPT\n-P OUTPUT ACCEPT\n-N DOCKER\n-N TOLLGATE_INBOUND\n-N TOLLGATE_OUTBOUND\n\
            -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n-A PREROUTING -p tcp -j TOLLGATE_INBOUND\n\
            -A OUTPUT -p tcp -j TOLLGATE_OUTBOUND\n-A OUTPUT -p tcp -j TOLLGATE_OUTBOUND\n\
            -A TOLLGATE_INBOUND -i lo -j RETURN\n-A TOLLGATE_OUTBOUND -o lo -j RETURN\n";
        assert_eq!(hooked(listed), [true, true]);
        assert_eq!(
            iptables_removal(listed).as_deref(),
            Some(
                "*nat\n-D PREROUTING -p tcp -j TOLLGATE_INBOUND\n-D OUTPUT -p tcp -j TOLLGATE_OUTBOUND\n\
                 -D OUTPUT -p tcp -j TOLLGATE_OUTBOUND\n-F TOLLGATE_INBOUND\n-F TOLLGATE_OUTBOUND\n\
                 -X TOLLGATE_INBOUND\n-X TOLLGATE_OUTBOUND\nCOMMIT\n"
            )
        );
        let others = "-P PREROUTING ACCEPT\n-N DOCKER\n-A PREROUTING -j DOCKER\n";
        assert_eq!(hooked(others), [false, false]);
        assert_eq!(iptables_removal(others), None);
    }
}
