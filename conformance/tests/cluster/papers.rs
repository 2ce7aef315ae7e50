//! Certificates and keys: nodes' own, and those that OpenSSL makes.

use std::path::{Path, PathBuf};

use skep_conformance::Lab;

/// A node's folder of certificates.
pub fn certificates(lab: &Lab, node: u16) -> PathBuf {
    lab.folder(node).join("data/swarm/certificates")
}

/// `openssl ARGUMENTS`; returns what it printed.
#[track_caller]
pub fn openssl(arguments: &[&str]) -> String {
    let output = std::process::Command::new("openssl").args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "openssl {}: {}", arguments.join(" "), text(&output.stderr));
    text(&output.stdout)
}

/// A certificate and its key, in files of their own.
pub struct Papers {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Papers {
    /// A copy of what a node shows others now.
    pub fn of(lab: &Lab, node: u16, folder: &Path) -> Papers {
        let key = std::fs::read_to_string(certificates(lab, node).join("swarm-node.key")).unwrap();
        // OpenSSL does not take the headers that the log's keys are in.
        let key: Vec<&str> = key.lines().filter(|line| !line.contains(": ") && !line.is_empty()).collect();
        let papers = Papers {
            certificate: folder.join(format!("{node}.crt")),
            key: folder.join(format!("{node}.key")),
        };
        std::fs::write(&papers.key, key.join("\n") + "\n").unwrap();
        std::fs::copy(certificates(lab, node).join("swarm-node.crt"), &papers.certificate).unwrap();
        papers
    }

    /// A root of OpenSSL's.
    pub fn root(folder: &Path, name: &str) -> Papers {
        let papers = Papers {
            certificate: folder.join(format!("{name}.crt")),
            key: folder.join(format!("{name}.key")),
        };
        let (certificate, key) = (papers.certificate.to_str().unwrap(), papers.key.to_str().unwrap());
        let make = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        let subject = ["-subj", "/CN=swarm-ca", "-days", "3650", "-keyout", key, "-out", certificate];
        openssl(&[&make[..], &subject].concat());
        papers
    }

    /// A node's certificate by this root: subject as OpenSSL takes it, life in days.
    pub fn issue(&self, folder: &Path, name: &str, subject: &str, days: &str) -> Papers {
        self.issue_for(folder, name, subject, days, "clientAuth", &format!("DNS:{name}"))
    }

    /// The same for any purpose and address, in OpenSSL's words.
    pub fn issue_for(
        &self,
        folder: &Path,
        name: &str,
        subject: &str,
        days: &str,
        usage: &str,
        address: &str,
    ) -> Papers {
        let papers = Papers {
            certificate: folder.join(format!("{name}.crt")),
            key: folder.join(format!("{name}.key")),
        };
        let request = folder.join(format!("{name}.csr"));
        let request = request.to_str().unwrap();
        let make = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj"];
        let (key, certificate) = (papers.key.to_str().unwrap(), papers.certificate.to_str().unwrap());
        openssl(&[&make[..], &[subject, "-keyout", key, "-out", request]].concat());
        let by = ["-CA", self.certificate.to_str().unwrap(), "-CAkey", self.key.to_str().unwrap()];
        let extensions = folder.join("extensions");
        let lines = format!("extendedKeyUsage={usage}\nsubjectAltName={address}\n");
        std::fs::write(&extensions, lines).unwrap();
        let sign = ["x509", "-req", "-in", request, "-CAcreateserial", "-days", days, "-out", certificate];
        openssl(&[&sign[..], &by, &["-extfile", extensions.to_str().unwrap()]].concat());
        papers
    }

    /// What a manager says to whoever shows this; nothing when it is content.
    pub fn shown_to(&self, lab: &Lab, node: u16) -> String {
        let address = format!("{}:2377", lab.address(node));
        let namespace = lab.namespace(0);
        // It stays connected until the other end has had time to say no.
        let script = "sleep 1 | ip netns exec $1 openssl s_client -connect $2 -cert $3 -key $4 -alpn h2 2>&1";
        let output = std::process::Command::new("sh")
            .args(["-c", script, "sh", &namespace, &address])
            .args([&self.certificate, &self.key])
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(told.contains("CONNECTED"), "{told}");
        let alert = told.lines().find(|line| line.contains("alert"));
        alert.map(|line| line.split("alert ").nth(1).unwrap_or(line).to_owned()).unwrap_or_default()
    }
}
