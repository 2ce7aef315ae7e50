//! Manifests and configurations: documents that are read whole, up to a limit, and verified.

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderMap, LINK};
use hyper::{Method, Response};

use super::{Ask, Session, Unreachable};
use crate::answer::{go_request, text_of};
use crate::manifest::{self, Descriptor, Document, Fetched, Manifest, Platform, media};
use crate::{Digest, RegistryError};

/// Most pages of a list of tags that are read.
const PAGE_LIMIT: usize = 100;

impl Session {
    /// Fetches the manifest or the index that `target`, a tag or a digest, names, and verifies it.
    ///
    /// # Errors
    /// [`RegistryError::Digest`] for another one than was asked for.
    pub async fn manifest(&self, target: &str) -> Result<Fetched, RegistryError> {
        let address = self.address(&format!("manifests/{target}"));
        let mut ask = Ask::new(Method::GET, address);
        for accepted in media::ACCEPTED {
            ask = ask.header(ACCEPT, accepted);
        }
        let (bytes, headers) = self.read_whole(&ask, manifest::MANIFEST_LIMIT).await?;
        let media_type = text_of(&headers, &CONTENT_TYPE);
        let digest = Digest::of(&bytes);
        if let Ok(expected) = target.parse::<Digest>()
            && expected != digest
        {
            return Err(RegistryError::Digest { expected });
        }
        let document = Document::parse(&bytes)?;
        let given = media_type.split(';').next().unwrap_or_default().trim().to_owned();
        let media_type = if media::ACCEPTED.contains(&given.as_str()) {
            given
        } else {
            document.default_media_type().to_owned()
        };
        let descriptor = Descriptor { media_type, size: bytes.len() as u64, digest };
        Ok(Fetched { descriptor, bytes, document })
    }

    /// The manifest of the image for a platform: `fetched` itself, or what it points at.
    ///
    /// # Errors
    /// [`RegistryError::Platform`]
    pub async fn image(&self, fetched: Fetched, wanted: &Platform) -> Result<Manifest, RegistryError> {
        let entries = match fetched.document {
            Document::Image(manifest) => return Ok(manifest),
            Document::Index(entries) => entries,
        };
        let chosen = manifest::choose(&entries, wanted)?;
        match self.manifest(chosen.descriptor.digest.as_str()).await?.document {
            Document::Image(manifest) => Ok(manifest),
            Document::Index(_) => {
                Err(RegistryError::Document("invalid manifest: an index within an index".to_owned()))
            }
        }
    }

    /// All tags of the repository, as the registry orders them.
    ///
    /// # Errors
    /// [`RegistryError::Document`] for a list without end.
    pub async fn tags(&self) -> Result<Vec<String>, RegistryError> {
        #[derive(serde::Deserialize)]
        struct Tags {
            /// Go writes `null` for none.
            tags: Option<Vec<String>>,
        }
        let mut address = self.address("tags/list");
        let mut tags = Vec::new();
        for _ in 0..PAGE_LIMIT {
            let ask = Ask::new(Method::GET, address.clone());
            let (bytes, headers) = self.read_whole(&ask, manifest::MANIFEST_LIMIT).await?;
            let page: Tags = serde_json::from_slice(&bytes)
                .map_err(|error| RegistryError::Document(format!("invalid list of tags: {error}")))?;
            tags.extend(page.tags.unwrap_or_default());
            // `<address>; rel="next"`
            let link = text_of(&headers, &LINK);
            let Some(next) = link.strip_prefix('<').and_then(|rest| rest.split_once('>')) else {
                return Ok(tags);
            };
            address = self.absolute(&address, next.0)?;
        }
        Err(RegistryError::Document(format!("the list of tags has more than {PAGE_LIMIT} pages")))
    }

    /// Fetches an image's configuration, and verifies it.
    ///
    /// # Errors
    /// [`RegistryError::Digest`] for another one than was asked for.
    pub async fn config(&self, config: &Descriptor) -> Result<Vec<u8>, RegistryError> {
        if config.size > manifest::CONFIG_LIMIT {
            return Err(RegistryError::Document("the image's configuration is too large".to_owned()));
        }
        let address = self.address(&format!("blobs/{}", config.digest));
        let limit = usize::try_from(config.size).unwrap_or(usize::MAX);
        let (bytes, _) = self.read_whole(&Ask::new(Method::GET, address), limit).await?;
        if Digest::of(&bytes) != config.digest {
            return Err(RegistryError::Digest { expected: config.digest.clone() });
        }
        Ok(bytes)
    }

    /// Asks for a document until it is there as a whole: its bytes, of which there may be `limit`, and its headers.
    async fn read_whole(&self, ask: &Ask, limit: usize) -> Result<(Vec<u8>, HeaderMap), RegistryError> {
        let mut attempts = self.attempts(Unreachable::IsTriedAgain);
        loop {
            let read = match self.ask(ask.clone()).await {
                Ok(response) => {
                    let headers = response.headers().clone();
                    self.read(response, limit, &ask.address).await.map(|bytes| (bytes, headers))
                }
                Err(error) => Err(error),
            };
            match read {
                Ok(read) => return Ok(read),
                Err(error) => attempts.again(error).await?,
            }
        }
    }

    /// Reads an answer's body, of `limit` bytes at most.
    pub(super) async fn read(
        &self,
        response: Response<Incoming>,
        limit: usize,
        address: &str,
    ) -> Result<Vec<u8>, RegistryError> {
        let collected = tokio::time::timeout(
            self.client.settings.patience,
            Limited::new(response.into_body(), limit).collect(),
        );
        let cut = |problem: String| RegistryError::Unreachable {
            request: go_request(&Method::GET, address),
            problem,
        };
        match collected.await {
            Ok(Ok(collected)) => Ok(collected.to_bytes().into()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                Err(RegistryError::Document(format!("{address}: more than {limit} bytes")))
            }
            Ok(Err(_)) => Err(cut("unexpected EOF".to_owned())),
            Err(_) => Err(cut("timeout awaiting the body".to_owned())),
        }
    }
}
