//! Files of finished exports.

use axum::{
    Extension,
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    http::{Uri, header},
    response::{IntoResponse, Response},
};
use tokio_util::io::ReaderStream;

use crate::{export::file::ExportKey, model::ScriptKey};

use super::{ApiError, WebState, access::Identity, download::attachment, query, readable::checked_name};

pub(super) async fn file(
    State(state): State<WebState>,
    Extension(reader): Extension<Identity>,
    path: Result<Path<(String, String)>, PathRejection>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let Path((namespace, name)) = path?;
    checked_name("namespace", &namespace)?;
    checked_name("export", &name)?;
    let [] = query::only(&uri, [])?;
    let key = ExportKey { namespace, name };
    let found = state.exports.find(&key).await;
    let Ok(Some((export, path))) = found else {
        // Whether an export exists is told only to who may read something there.
        let any = ScriptKey::new(&*key.namespace, "");
        state.authorize(&reader, "runs", &any).await?;
        found?;
        return Err(ApiError::not_found(
            "ExportNotFound",
            format!(
                "there is no file of an export {} in namespace {}; `kubectl describe scriptexport {}` says how it stands",
                key.name, key.namespace, key.name
            ),
        ));
    };
    // The namespace of the path, not of the description: it is the one that the folder is of.
    let script = ScriptKey::new(&*key.namespace, &*export.script.name);
    state
        .authorize(&reader, export.data.subresource(), &script)
        .await?;
    let file = tokio::fs::File::open(path).await.map_err(|error| {
        tracing::error!(%error, "The file of an export could not be opened.");
        ApiError::internal()
    })?;
    Ok((
        [
            (header::CONTENT_TYPE, export.format.media_type().to_owned()),
            (header::CONTENT_DISPOSITION, attachment(&export.file_name)),
            (header::CONTENT_LENGTH, export.bytes.to_string()),
            (header::ETAG, format!("\"{}\"", export.sha256)),
        ],
        Body::from_stream(ReaderStream::new(file)),
    )
        .into_response())
}
