//! Settings files.

use std::path::{Path, PathBuf};

use super::{kafka::Broker, new_folder, postgres::Server};

/// A settings file of its own folder, which is removed when dropped.
pub struct SettingsFile {
    folder: PathBuf,
    text: String,
}

impl SettingsFile {
    /// The first pipeline of README.md.
    pub fn new(server: &Server, broker: &Broker, database: &str) -> Self {
        let (url, brokers) = (server.url(database), broker.brokers());
        Self::of_text(format!(
            "source = \"order-service\"\n\n[postgres]\nurl = \"{url}\"\n\n[kafka]\nbrokers = \
             \"{brokers}\"\n\n[[outbox]]\ntable = \"public.outbox_events\"\n"
        ))
    }

    /// A file that holds this.
    pub fn of_text(text: String) -> Self {
        let settings = Self { folder: new_folder("settings"), text };
        settings.write();
        settings
    }

    fn write(&self) {
        std::fs::write(self.path(), &self.text).expect("write the settings");
    }

    /// With one line more under its `[section]`.
    pub fn with(self, section: &str, line: &str) -> Self {
        let heading = format!("{section}\n");
        assert!(self.text.contains(&heading), "{section}");
        self.replaced(&heading, &format!("{heading}{line}\n"))
    }

    /// With another text in the place of one.
    pub fn replaced(mut self, from: &str, to: &str) -> Self {
        assert!(self.text.contains(from), "{from}");
        self.text = self.text.replacen(from, to, 1);
        self.write();
        self
    }

    /// The checkpoint topic that it names.
    ///
    /// # Panics
    /// Where it names none.
    pub fn checkpoint_topic(&self) -> &str {
        let mut lines = self.text.lines();
        let named = lines.find_map(|line| line.strip_prefix("checkpoint_topic = \""));
        named.and_then(|rest| rest.strip_suffix('"')).expect("a checkpoint topic")
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.folder.join("tailwater.toml")
    }

    /// Its folder, for what belongs beside it.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for SettingsFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
