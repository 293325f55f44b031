use super::*;

#[test]
fn names_are_read_of_any_list() {
    let text = "NODELIST FEATURES GRES\ngpu[1-2] h100 8\nlogin:4 # slots\n\n# none\ngpu2\n";
    let names = Hosts::names(text).expect("names");
    assert_eq!(
        names.into_iter().collect::<Vec<_>>(),
        ["gpu1", "gpu2", "login"]
    );
    let error = Hosts::names("a\nb[2-1]").expect_err("no range").to_string();
    assert!(error.contains("line 2"), "{error}");
}

fn classes() -> Vec<DeviceClass> {
    let class = |name: &str, devices, host_devices, domain_devices| DeviceClass {
        name: name.to_owned(),
        accelerator: format!("{name}-sxm"),
        devices,
        host_devices,
        domain_devices,
    };
    vec![class("h100", 20, 8, 8), class("gb200", 24, 4, 8)]
}

/// Name, class, devices and domain of each host.
fn parsed(text: &str) -> Vec<(String, usize, u32, u32)> {
    let hosts = Hosts::parse(text, &classes()).unwrap();
    let host = |host: &Host| (host.name.clone(), host.class, host.devices, host.domain);
    hosts.list.iter().map(host).collect()
}

fn host(name: &str, class: usize, devices: u32, domain: u32) -> (String, usize, u32, u32) {
    (name.to_owned(), class, devices, domain)
}

#[test]
fn lists_of_our_own() {
    let text = "# hosts\nb[1-2] h100 # two\n\na1 h100 4 cores=64\n";
    let expect = [
        host("b1", 0, 8, 0),
        host("b2", 0, 8, 1),
        host("a1", 0, 4, 2),
    ];
    assert_eq!(parsed(text), expect);
    let hosts = Hosts::parse(text, &classes()).unwrap();
    let cores: Vec<_> = hosts.list.iter().map(|host| host.cores).collect();
    assert_eq!(cores, [None, None, Some(64)]);
}

#[test]
fn lists_of_slurm() {
    let text = "NODELIST AVAIL_FEATURES GRES\n\
                n1 ib,h100-sxm gpu:h100:8(S:0-1)\n\
                n1 ib,h100-sxm gpu:h100:8(S:0-1)\n\
                n2 ib,gb200 gpu:4,nvme:2\n\
                n3 gb200 (null)\n\
                login (null) (null)\n";
    let expect = [
        host("n1", 0, 8, 0),
        host("n2", 1, 4, 1),
        host("n3", 1, 4, 1),
    ];
    assert_eq!(parsed(text), expect);
}

#[test]
fn hosts_of_a_domain_stand_together() {
    let text = "n1 gb200 4 domain=b\nn2 gb200 4 domain=a\nn3 gb200 4 domain=b\n";
    let expect = [
        host("n1", 1, 4, 0),
        host("n3", 1, 4, 0),
        host("n2", 1, 4, 1),
    ];
    assert_eq!(parsed(text), expect);
}

#[test]
fn wrong_lines_are_refused_with_their_number() {
    let check = |text: &str, line: usize, expect: &str| {
        let error = Hosts::parse(text, &classes()).unwrap_err();
        let LaunchError::BadHostLine { line: found, why } = &error else {
            panic!("{error}");
        };
        assert_eq!((*found, why.contains(expect)), (line, true), "{error}");
    };
    check("a h100\nb\n", 2, "needs its class");
    check("a h100 0", 1, "above zero");
    check("a h100 many", 1, "above zero");
    check("a h100 8 sockets=2", 1, "cores=N");
    check("a h100,gb200", 1, "several classes");
    check("a[1-x] h100", 1, "range");
    check("a h100 8\na h100 4", 2, "otherwise");
    let error = Hosts::parse("a v100 8\n", &classes()).unwrap_err();
    let classes = "h100, gb200".to_owned();
    assert_eq!(error, LaunchError::NoHosts { classes });
}

#[test]
fn placeholders_are_as_many_as_the_devices_need() {
    let hosts = Hosts::placeholders(&classes());
    let names: Vec<&str> = hosts.list.iter().map(|host| host.name.as_str()).collect();
    let expect = "h100-[0001-0003],gb200-[0001-0006]";
    assert_eq!(super::super::host_list::compress(names.into_iter()), expect);
    assert_eq!(hosts.list[2].devices, 4);
    let domains: Vec<u32> = hosts.list.iter().map(|host| host.domain).collect();
    assert_eq!(domains, [0, 1, 2, 3, 3, 4, 4, 5, 5]);
}
