"""What one writes in an afternoon instead of using the platform: the peer of `marketlake collect`.

List, get each zip and its checksum file, prove the sha256, put the zip into landing, parse, write one Parquet file for
each symbol. It keeps no ledger, sends no event, refines nothing, and starts from nothing after a failure.
"""

import asyncio
import hashlib
import io
import json
import sys
import time
import zipfile

import obstore
import polars as pl
from obstore.store import S3Store

IN_FLIGHT = 32


async def collect(store: dict[str, str], venue_bucket: str, prefix: str) -> tuple[int, int]:
    """Bring in all symbols that begin with `prefix`; return how many files and rows."""
    common = {
        "endpoint": store["endpoint"],
        "region": store["region"],
        "access_key_id": store["access_key_id"],
        "secret_access_key": store["secret_access_key"],
        "virtual_hosted_style_request": False,
        "client_options": {"allow_http": True},
    }
    venue, landing, lake = (
        S3Store(bucket, **common)  # type: ignore[arg-type]  # plain strings, as one would write it
        for bucket in (venue_bucket, store["landing_bucket"], store["lake_bucket"])
    )
    turns = asyncio.Semaphore(IN_FLIGHT)

    async def bring(key: str) -> bytes:
        async with turns:
            sidecar = await obstore.get_async(venue, f"{key}.CHECKSUM")
            expected = bytes(await sidecar.bytes_async()).split()[0].decode()
            body = bytes(await (await obstore.get_async(venue, key)).bytes_async())
            if hashlib.sha256(body).hexdigest() != expected:
                raise SystemExit(f"{key}: the checksum differs")
            await obstore.put_async(landing, f"by-hand/{key}", body, use_multipart=False)
            return body

    symbols: dict[str, list[str]] = {}
    for page in obstore.list(venue, "data/spot/daily/klines/"):
        for item in page:
            if item["path"].endswith(".zip") and item["path"].split("/")[4].startswith(prefix):
                symbols.setdefault(item["path"].split("/")[4], []).append(item["path"])
    files = rows = 0
    for symbol, keys in symbols.items():
        frames = []
        for key, body in zip(keys, await asyncio.gather(*map(bring, keys)), strict=True):
            with zipfile.ZipFile(io.BytesIO(body)) as packed:
                text = packed.read(packed.namelist()[0])
            frames.append(pl.read_csv(text, has_header=False).with_columns(source_key=pl.lit(key)))
        table = pl.concat(frames)
        parquet = io.BytesIO()
        table.write_parquet(parquet)
        await obstore.put_async(lake, f"by-hand/{symbol}.parquet", parquet.getvalue(), use_multipart=False)
        files, rows = files + len(keys), rows + table.height
    return files, rows


def main() -> None:
    """Read the store's settings from standard input; print files, rows, and seconds of wall and processor."""
    wall, processor = time.monotonic(), time.process_time()
    files, rows = asyncio.run(collect(json.loads(sys.stdin.read()), *sys.argv[1:3]))
    used = time.process_time() - processor
    print(json.dumps({"files": files, "rows": rows, "wall_s": time.monotonic() - wall, "cpu_s": used}))


if __name__ == "__main__":
    main()
