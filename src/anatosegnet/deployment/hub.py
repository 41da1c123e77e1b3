"""A package sent to the Hugging Face hub."""

from pathlib import Path

from anatosegnet.console import say, some
from anatosegnet.errors import UserError
from anatosegnet.files.hub import Address, naming


def push(folder: Path, text: str) -> str:
    """Upload a package; a repository that is not there yet is made, and is private.

    Args:
        folder: The package.
        text: The address, ``hf://owner/name``.

    Returns:
        Where it can be seen.

    Raises:
        UserError: The hub refuses it or does not answer, or a link lies in the folder.
    """
    import huggingface_hub

    address = Address.of(text)
    if links := [path.name for path in folder.rglob("*") if path.is_symlink()]:
        raise UserError(f"{folder} holds links, which are not sent: {some(links)}")
    api = huggingface_hub.HfApi(library_name="anatosegnet")
    with naming(text):
        api.create_repo(address.repository, private=True, exist_ok=True)
        done = api.upload_folder(
            repo_id=address.repository,
            folder_path=folder,
            revision=address.revision,
            commit_message="AnatoSegNet package",
        )
    url = str(done.commit_url)
    say(f"pushed {url}")
    return url
