//! Who a process is: a user named or numbered, resolved by the container's own files, as runc does it.

/// The highest id that Docker takes.
const ID_LIMIT: u32 = i32::MAX as u32;

/// A resolved user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups, the first of which is `gid` (CVE-2022-36109).
    pub groups: Vec<u32>,
    /// Home folder; `/` where /etc/passwd knows none.
    pub home: String,
}

/// A number, where the text is one.
fn number(text: &str) -> Option<u32> {
    text.parse::<i64>().ok().map(|number| u32::try_from(number).unwrap_or(u32::MAX))
}

fn in_range(id: u32) -> Result<u32, String> {
    if id <= ID_LIMIT { Ok(id) } else { Err("uids and gids must be in range 0-2147483647".to_owned()) }
}

/// Lines of /etc/passwd or /etc/group that are whole, as fields.
fn entries(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split(':').collect::<Vec<_>>())
        .filter(|fields| fields.len() >= 3)
}

/// Resolves `user` (`""`, `name`, `uid`, each with an optional `:group` or `:gid`) and `extra` groups, given the
/// texts of /etc/passwd and /etc/group. The error is in Docker's words.
pub fn resolve(user: &str, extra: &[String], passwd: &str, group: &str) -> Result<Identity, String> {
    let (user, group_wanted) = user.split_once(':').unwrap_or((user, ""));
    let wanted_uid = if user.is_empty() { Some(0) } else { number(user) };
    let entry = entries(passwd).find(|fields| match wanted_uid {
        Some(uid) => number(fields[2]) == Some(uid),
        None => fields[0] == user,
    });
    let (name, uid, mut gid, home) = match (&entry, wanted_uid) {
        (Some(fields), _) => {
            let id = |index: usize| fields.get(index).and_then(|field| number(field)).unwrap_or(0);
            (Some(fields[0]), id(2), id(3), fields.get(5).copied().unwrap_or("/"))
        }
        (None, Some(uid)) => (None, uid, 0, "/"),
        (None, None) => {
            return Err(format!("unable to find user {user}: no matching entries in passwd file"));
        }
    };
    let mut groups = Vec::new();
    if !group_wanted.is_empty() {
        gid = find_group(group_wanted, group).ok_or_else(|| {
            format!("unable to find group {group_wanted}: no matching entries in group file")
        })?;
    } else if let Some(name) = name {
        let member =
            |fields: &Vec<&str>| fields.get(3).is_some_and(|list| list.split(',').any(|one| one == name));
        groups.extend(entries(group).filter(member).filter_map(|fields| number(fields[2])));
    }
    groups.insert(0, gid);
    for wanted in extra {
        let found = find_group(wanted, group).ok_or_else(|| format!("Unable to find group {wanted}"))?;
        groups.push(found);
    }
    for index in (1..groups.len()).rev() {
        if groups[..index].contains(&groups[index]) {
            groups.remove(index);
        }
    }
    groups.iter().try_for_each(|id| in_range(*id).map(drop))?;
    Ok(Identity { uid: in_range(uid)?, gid: in_range(gid)?, groups, home: home.to_owned() })
}

fn find_group(wanted: &str, group: &str) -> Option<u32> {
    number(wanted).or_else(|| {
        let found = entries(group).find(|fields| fields[0] == wanted)?;
        number(found[2])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# note\nbroken\nweb:x:1000:1001::/srv/web:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nwheel:x:10:root,web\nweb:x:1001:\nlog:x:50:web\n";

    fn check(user: &str, extra: &[&str], expected: (u32, u32, &[u32], &str)) {
        let extra: Vec<String> = extra.iter().map(|text| (*text).to_owned()).collect();
        let found = resolve(user, &extra, PASSWD, GROUP).expect("the user resolves");
        assert_eq!((found.uid, found.gid, &found.groups[..], found.home.as_str()), expected, "{user}");
    }

    #[test]
    fn users_resolve_as_in_runc() {
        check("", &[], (0, 0, &[0, 10], "/root"));
        check("web", &[], (1000, 1001, &[1001, 10, 50], "/srv/web"));
        check("1000", &[], (1000, 1001, &[1001, 10, 50], "/srv/web"));
        check("web:wheel", &[], (1000, 10, &[10], "/srv/web"));
        check("web:77", &["50", "wheel", "wheel"], (1000, 77, &[77, 50, 10], "/srv/web"));
        check("4242", &[], (4242, 0, &[0], "/"));
        check("4242:4343", &[], (4242, 4343, &[4343], "/"));
    }

    #[test]
    fn strangers_are_refused_in_docker_s_words() {
        let refused = |user| resolve(user, &[], PASSWD, GROUP).expect_err("nobody of this name");
        assert_eq!(refused("bob"), "unable to find user bob: no matching entries in passwd file");
        assert_eq!(refused("web:staff"), "unable to find group staff: no matching entries in group file");
        assert_eq!(refused("4294967295"), "uids and gids must be in range 0-2147483647");
        assert_eq!(refused("-1"), "uids and gids must be in range 0-2147483647");
        let extra = resolve("web", &["staff".to_owned()], PASSWD, GROUP);
        assert_eq!(extra, Err("Unable to find group staff".to_owned()));
    }
}
