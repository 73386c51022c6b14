"""`Composite`: an object made of named components, in memory or over an open file."""

from __future__ import annotations

import dataclasses
import os
import uuid
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from . import assembly, kinds, links, targets
from . import definition as definitions
from .components import Components
from .container.layout import DEFAULT
from .definition import Definition
from .errors import DefinitionError, UnsupportedParameterError, WrongTypeError, WrongValueError, require_type, suggest
from .links import DataId, Link, checked_data_id
from .parts import LinkedPart, MemoryPart, Part, StoredPart, fetch_parts
from .recipes import Recipes
from .writing import group_of, image_of, write_file

if TYPE_CHECKING:
    from astropy.nddata import CCDData, NDUncertainty
    from dask.array import Array
    from dask.dataframe import DataFrame
    from photutils.psf import GriddedPSFModel, ImagePSF

    from .opening import Opening
    from .report import ComponentInfo

FETCHED_TOGETHER = 256 * 1024 * 1024
"""Components of a remote file that are more than this, as stored, are fetched one after the other."""


_ATTRIBUTES = frozenset({"data_id", "dataset_type", "run", "stage", "id", "provenance"})
"""What a composite has beside its definition and its components."""


class Composite(Components):
    """An object made of named components.

    A lazy mapping: ``composite["wcs"]`` reads that component and no other. Components that are known to be
    None are absent: not among the keys, but in `absent`. Values stay usable after the file is closed.

    Parameters
    ----------
    definition : str or Definition, optional
        Type of the composite: a definition or the name of one. Without it any components can be given, and their
        kinds follow from their types.
    components : mapping, optional
        Values, or `Link` objects to components of other composites, or None, by name.
    data_id : mapping, optional
        Data ID: numbers or text by dimension.
    dataset_type, run, stage : str, optional
        Dataset type and run in a Butler, and the name of the processing step that made the components.
    id : str or uuid.UUID, optional
        Id; derived from the content when the composite is written if it isn't given.
    provenance : mapping, optional
        What is known of how it came to be; anything that JSON can hold.
    **more
        Components, for names that can be written so.

    Raises
    ------
    DefinitionError
        If components are missing, or not of this definition.
    EncodeError
        If a value can't be of its component's kind.
    """

    def __init__(
        self,
        definition: str | Definition | None = None,
        components: Mapping[str, Any] | None = None,
        /,
        *,
        data_id: DataId | None = None,
        dataset_type: str = "",
        run: str = "",
        stage: str = "",
        id: str | uuid.UUID | None = None,
        provenance: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> None:
        require_type(definition, (str, Definition, type(None)), "a definition, the name of one, or None")
        require_type({} if components is None else components, Mapping, "a mapping of names to components")
        values = {**(components or {}), **more}
        if definition is not None:
            definition = _definition(definition)
            definition.check(values)
        self._set(
            definition=definition.name if definition else "",
            definition_version=definition.version if definition else 1,
            data_id=data_id,
            dataset_type=dataset_type,
            run=run,
            stage=stage,
            id=id,
            provenance=provenance,
        )
        self._signal = (definition.signal or "") if definition else ""
        for name, value in values.items():
            self._set_part(name, value, definition, stage)

    @classmethod
    def of(
        cls,
        obj: Any,
        definition: str | Definition,
        /,
        *,
        data_id: DataId | None = None,
        dataset_type: str = "",
        run: str = "",
        stage: str = "",
        id: str | uuid.UUID | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> Composite:
        """Return a composite of the components of an object of a user's own class; `assemble` is the way back.

        Parameters
        ----------
        obj : object
            The object. Its components may be values or `Link` objects.
        definition : str or Definition
            Definition, or the name of one, that tells which components there are, and how they are taken from the
            object; see `compositeh5.assembly.disassemble`.
        data_id, dataset_type, run, stage, id, provenance
            As in the constructor.

        Raises
        ------
        DefinitionError
            If the object can't be taken apart so.
        EncodeError
            If a value can't be of its component's kind.
        Exception
            What the user's code raises.

        Examples
        --------
        >>> composite = Composite.of(observation, "observation", data_id={"visit": 7})  # doctest: +SKIP
        >>> composite.write("observation.h5")  # doctest: +SKIP
        >>> again = composite.assemble()  # doctest: +SKIP
        """
        definition = _definition(definition)
        return cls(
            definition,
            assembly.disassemble(obj, definition),
            data_id=data_id,
            dataset_type=dataset_type,
            run=run,
            stage=stage,
            id=id,
            provenance=provenance,
        )

    def assemble(self, cls: type[Any] | None = None, definition: str | Definition | None = None) -> Any:
        """Return the object of a user's own class that is made of the components which are present.

        Parameters
        ----------
        cls : type, optional
            The class, instead of the ``python_type`` of the definition.
        definition : str or Definition, optional
            Definition, or the name of one, that tells how the object is built; see `compositeh5.assembly.assemble`. By
            default that of the composite, which must be registered (`register_definition`).

        Raises
        ------
        DefinitionError
            If the definition isn't known, or the object can't be built so.
        Exception
            What the user's code raises, or ``composite[name]`` for one of the components.
        """
        definition = _definition(definition or self.definition)
        parts = {name: self._part(name) for name in self if name != definitions.VERSIONS}
        with fetch_parts(parts.values(), FETCHED_TOGETHER):
            values = {name: part.read() for name, part in parts.items()}
        return assembly.assemble(values, definition, cls)

    def _set(
        self,
        *,
        definition: str,
        definition_version: int,
        data_id: DataId | None,
        dataset_type: str = "",
        run: str = "",
        stage: str = "",
        id: str | uuid.UUID | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        for name, text in (("dataset_type", dataset_type), ("run", run), ("stage", stage)):
            require_type(text, str, f"{name}, as text,")
        require_type({} if provenance is None else provenance, Mapping, "provenance, a mapping,")
        self.definition = definition
        """Name of the definition; empty if it has none."""
        self.definition_version = definition_version
        """Version of the definition."""
        self.data_id: dict[str, int | str] = checked_data_id({} if data_id is None else data_id)
        """Data ID."""
        self.dataset_type = dataset_type
        """Name of the dataset type in a Butler; empty if unknown."""
        self.run = run
        """Name of the run in a Butler; empty if unknown."""
        self.stage = stage
        """The processing step that made the composite; empty if unknown."""
        self.id = "" if id is None else str(id)
        """Id (UUID) of the composite; empty for one that was neither given one nor written."""
        self.provenance: dict[str, Any] = dict(provenance or {})
        """How it came to be."""
        self.recorded_digest = ""
        """Digest that the file records; empty for a composite in memory."""
        self._parts: dict[str, Part] = {}
        self._absent: list[str] = []
        self._signal = ""
        self._set_state(None)

    def _set_state(self, location: str | None) -> None:
        super()._set_state(location)
        self.fallbacks: dict[str, str] = {}
        """Components that `require_stage` took from an earlier stage, and which."""
        self._digests: dict[str, str] = {}
        self._opening: Opening | None = None

    # Reading

    def component_origin(self, name: str) -> Link | None:
        """Return a link to where the content of a component is from.

        For a linked component that is where it is stored; for one that was copied from another composite, where it
        was there; else the composite itself, or None if that isn't stored.
        """
        part = self._part(name)
        return part.origin or (None if self.location is None else self.stored_link(name))

    def versions(self, name: str) -> tuple[str, ...]:
        """Return the stages of the versions of a component; the first is that of the default, ``composite[name]``."""
        from .operations.versions import version_names

        return version_names(self, name)

    def read_version(self, name: str, stage: str, **parameters: Any) -> Any:
        """Return the version of a component that a stage has made, or a part of it, as `read` does.

        Parameters
        ----------
        name, stage : str
            Names of the component and of the stage.
        **parameters
            What to read, as for `read`.

        Raises
        ------
        NoSuchComponentError
            If there is no such version.
        """
        from .operations.versions import version

        return version(self, name, stage).read(**parameters)

    def require_stage(
        self, stage: str, components: Iterable[str] | None = None, *, fallback: str | Iterable[str] = ()
    ) -> Composite:
        """Return the composite with components that have reached a processing stage, or fail.

        Parameters
        ----------
        stage : str
            The stage. A component of which that version is kept beside the default one is replaced by it.
        components : iterable of str, optional
            The components that must have reached it. By default those that the definition marks as calibrations; if
            it marks none, all.
        fallback : str or iterable of str, optional
            Earlier stages to be accepted instead, in order of preference. `fallbacks` then tells for which components
            they were.

        Returns
        -------
        Composite
            This one; or, if a version was exchanged, another, for which this one must stay open.

        Raises
        ------
        StageError
            If a component has not reached any of the stages. The message names all of them.
        """
        from .operations.overlay import require_stage

        return require_stage(self, stage, components, fallback)

    def cutout(
        self, where: Any, size: Any = None, *, components: tuple[str, ...] | list[str] | None = None
    ) -> Composite:
        """Return the part of the composite around a position, in memory.

        Parameters
        ----------
        where : Box, SkyCoord or (float, float)
            A box in parent coordinates, or the centre: a sky position, or (y, x) in parent coordinates.
        size : int, (int, int) or Quantity, optional
            Number of pixels along both axes, or of rows and columns, or an angle; needed with a centre.
        components : sequence of str, optional
            The components wanted. By default all planes of pixels, and the WCS.

        Returns
        -------
        Composite
            The planes cut to the part of the box that is inside the image, the WCS changed so that the same
            pixels have the same sky positions, others as they are.

        Raises
        ------
        OutsideError
            If the box has no pixel of the image.
        """
        from .operations.cutout import cutout

        return cutout(self, where, size, components)

    def components(self) -> dict[str, ComponentInfo]:
        """Return what is known of each component without reading its values, absent ones included."""
        from .report import component_infos

        return component_infos(self)

    def tree(self) -> str:
        """Return a table of the components as text: kind, shape, size, where each is."""
        from .report import tree

        return tree(self)

    def load(self) -> Composite:
        """Return the composite with all values in memory, links kept beside the values of linked components."""
        new = self._like()
        parts = {name: self._part(name) for name in self}
        with fetch_parts(parts.values(), FETCHED_TOGETHER):
            for name, part in parts.items():
                if isinstance(part, LinkedPart):
                    new._parts[name] = part.loaded()
                else:
                    new._parts[name] = MemoryPart(part.read(), part.kind, part.stage, part.origin)
        new.location, new.id, new._digests = self.location, self.id, self._known_digests()
        return new

    def replace(self, components: Mapping[str, Any] | None = None, /, **attributes: Any) -> Composite:
        """Return a composite in memory like this one, but for some of its components and attributes.

        All others are shared with this one, which must stay open while they are read.

        Parameters
        ----------
        components : mapping, optional
            Values, `Link` objects or None by name, in place of those that there are, or new.
        **attributes
            ``data_id``, ``dataset_type``, ``run``, ``stage``, ``id`` and ``provenance``, as in the constructor. An id
            names one content: without a new one the result has none.

        Raises
        ------
        DefinitionError
            If the definition doesn't have one of the components, or as one of another kind.
        EncodeError
            If a value can't be of its component's kind.
        WrongTypeError
            If there is no attribute of that name.
        """
        require_type({} if components is None else components, Mapping, "a mapping of names to components")
        for name in attributes.keys() - _ATTRIBUTES:
            raise WrongTypeError(
                f"{self._where}: replace() has no argument {name!r}{suggest(name, _ATTRIBUTES)}; "
                f"components are replaced by a mapping: replace({{{name!r}: value}})"
            )
        new = self._like(**attributes)
        new._parts = dict(self._parts)
        definition = definitions.known_definition(self.definition)
        for name, value in (components or {}).items():
            if definition is not None and name not in definition.components and name != definitions.VERSIONS:
                raise DefinitionError(f"{self._where}: the definition {self.definition!r} has no component {name!r}")
            new._set_part(name, value, definition, new.stage)
        return new

    def overlay(
        self,
        components: Mapping[str, Any] | None = None,
        /,
        *,
        keep: Iterable[str] = (),
        data_id: DataId | None = None,
        stage: str = "",
        **more: Any,
    ) -> Composite:
        """Return a composite that is this one with some components changed; all others are links.

        Written, it takes the changed components and some kB. This one isn't changed, and nothing of it is read. Links
        lead to where components are stored, also if this one has links itself; the steps on the way are in
        ``provenance["history"]``.

        Parameters
        ----------
        components : mapping, optional
            Values, `Link` objects or None by name, in place of those that there are, or new.
        keep : iterable of str, optional
            The components of which the version that is replaced is kept as well: `versions` names it by its stage.
        data_id : mapping, optional
            Further keys of the data ID, such as the tract for which a calibration was made.
        stage : str, optional
            The processing step that made the changed components.
        **more
            Components, for names that can be written so; and the attributes ``dataset_type``, ``run`` and ``id``.

        Raises
        ------
        ValueError
            If the composite isn't stored yet.
        DefinitionError
            If the definition doesn't have one of the components, or as one of another kind, or if the data ID
            contradicts that of this composite.
        EncodeError
            If a value can't be of its component's kind.
        """
        from .operations.overlay import overlay

        require_type({} if components is None else components, Mapping, "a mapping of names to components")
        attributes = {"stage": stage} | {key: more.pop(key) for key in ("dataset_type", "run", "id") if key in more}
        return overlay(
            self, {**(components or {}), **more}, keep, checked_data_id({} if data_id is None else data_id), attributes
        )

    def _like(self, **attributes: Any) -> Composite:
        """Return a composite with the same attributes but for those given, no id and no components."""
        new = Composite.__new__(Composite)
        same = {
            "data_id": self.data_id,
            "dataset_type": self.dataset_type,
            "run": self.run,
            "stage": self.stage,
            "provenance": self.provenance,
        }
        new._set(definition=self.definition, definition_version=self.definition_version, **{**same, **attributes})
        new._absent, new._signal = list(self._absent), self._signal
        return new

    # As objects of other software

    def to_dask(
        self, name: str = "image", *, chunks: Any = "auto", columns: str | Iterable[str] | None = None
    ) -> Array | DataFrame:
        """Return a component as a lazy array or data frame of dask, read where it is computed.

        It needs the extra ``dask``, and for tables ``dask[dataframe]``. What is sent to workers is where the component
        is, which they open by its id, and not its content; this composite need not stay open. If it isn't stored, the
        result holds the values.

        Parameters
        ----------
        name : str, optional
            Name of a component that is one array (an image, a mask), or a table.
        chunks : int, str or tuple, optional
            Chunks along each axis, as dask takes them. By default dask chooses multiples of the chunks as stored;
            ``c.lazy(name).chunks`` are these themselves. Of a table the number of rows in each partition, by default
            as many as are 64 MiB.
        columns : iterable of str, or str, optional
            The columns of a table; all by default. Of these, what a computation doesn't need isn't read.

        Returns
        -------
        dask.array.Array or dask.dataframe.DataFrame
            An array of shape and type of the component; a frame with what `astropy.table.Table.to_pandas` gives,
            indexed by row. Neither has units.

        Raises
        ------
        ImportError
            If dask, or for tables pandas or pyarrow, isn't installed.
        TypeError
            If the component is neither one array nor a table.
        ConversionError
            If the table has columns of several axes.
        CompositeH5Error
            As ``composite[name]`` does.
        """
        if self.kind(name) == "table":
            from .operations.frames import to_frame

            return to_frame(self, name, chunks, columns)
        from .operations.stacking import to_dask

        if columns is not None:
            raise UnsupportedParameterError(f"{self._where}: component {name!r} is no table, and has no columns")
        return to_dask(self, name, chunks)

    def to_ccddata(
        self,
        *,
        planes: str | Iterable[str] | None = None,
        uncertainty: type[NDUncertainty] | None = None,
        unit: Any = None,
    ) -> CCDData:
        """Return an exposure as a `astropy.nddata.CCDData`: image, variance, mask, WCS, PSF and header in one.

        Of a part of it: ``c.cutout(...).to_ccddata()``.

        Parameters
        ----------
        planes : str or iterable of str, optional
            The planes of the mask of which any makes a pixel masked, as in `Mask.bad`.
        uncertainty : type, optional
            As what the variance is given: `VarianceUncertainty` (the default), `StdDevUncertainty` or
            `InverseVariance`.
        unit : str or astropy.units.UnitBase, optional
            Unit of the pixels, if the composite doesn't know it.

        Returns
        -------
        CCDData
            See `compositeh5.astropy.to_nddata`, which makes other classes than this, such as `NDDataRef`.

        Raises
        ------
        ConversionError
            If the unit of the pixels isn't known.
        MaskPlaneError
            If the mask has no plane of one of the names.
        CompositeH5Error
            As ``composite["image"]`` does.
        """
        from astropy.nddata import CCDData, VarianceUncertainty

        from .astropy import to_nddata

        return to_nddata(
            self,
            CCDData,
            planes=planes,
            uncertainty=VarianceUncertainty if uncertainty is None else uncertainty,
            unit=unit,
        )

    def to_photutils(self, name: str = "psf") -> GriddedPSFModel | ImagePSF:
        """Return a PSF as a model of photutils, for the indices of the image's array. Needs the extra ``photutils``.

        Parameters
        ----------
        name : str, optional
            Name of a component of kind ``psf``. Parent coordinates are made indices by the origin of the component
            ``image``, if there is one.

        Raises
        ------
        ImportError, ValueError
            As `compositeh5.photutils.to_photutils` does.
        CompositeH5Error
            As ``composite[name]`` does.
        """
        from .photutils import to_photutils

        return to_photutils(self[name], self.lazy("image").origin if "image" in self else (0, 0))

    # Links and writing

    def link(self, name: str) -> Link:
        """Return a link to a component, for use as a component of another composite.

        A component that is itself linked gives the link to where it is stored.

        Raises
        ------
        ClosedError, NoSuchComponentError, AbsentComponentError
            As ``composite[name]`` does.
        ValueError
            If the composite isn't stored yet: nothing could be found at the link's end.
        """
        link, part = self.stored_link(name), self._part(name)
        if isinstance(part, MemoryPart) and (nbytes := targets.node_bytes(part.open_node()[0])) <= targets.CACHED_BYTES:
            # Whoever has just written it needs not read it back.
            targets.cache.put(link, kinds.get(part.kind).share(part.value), nbytes)
        return link

    def stored_link(self, name: str) -> Link:
        """Return what `link` does, without keeping the value for those who will follow the link."""
        part = self._part(name)
        if isinstance(part, LinkedPart):
            return dataclasses.replace(part.link, uri=part.place)
        if self.location is None:
            raise WrongValueError(f"{self._where}: write it first, then link to its component {name!r}")
        return Link(
            id=self.id,
            component=name,
            kind=part.kind,
            digest=self._known_digests()[name],
            uri=self.location,
            definition=self.definition,
            dataset_type=self.dataset_type,
            data_id=self.data_id,
            run=self.run,
            stage=part.stage,
        )

    def _known_digests(self) -> dict[str, str]:
        stored = {name: part for name, part in self._parts.items() if isinstance(part, StoredPart)}
        return {**{name: part.digest for name, part in stored.items() if name not in self._digests}, **self._digests}

    @property
    def digest(self) -> str:
        """Digest of the composite: of its attributes and the digests of all components, stored or linked."""
        return group_of(self).attr("digest", str)

    def file_image(self, location: str | os.PathLike[str], *, recipes: Recipes | None = None) -> bytes:
        """Return the bytes of the file that holds the composite, as they must be at ``location``.

        Links are written relative to the location, so the bytes are valid only there, or where the files that
        they link to have moved along.

        Parameters
        ----------
        location : path
            Where the file will be.
        recipes : mapping, optional
            How components are compressed and cut into chunks, as for `write`.

        Raises
        ------
        NoSuchComponentError
            If the composite can't have a component for which there is a recipe.
        """
        return image_of({DEFAULT: self}, links.absolute_location(location), recipes=recipes)

    def write(self, path: str | os.PathLike[str], *, replace: bool = False, recipes: Recipes | None = None) -> None:
        """Write the composite to a file, all of it or nothing.

        When this returns, the file is on the disk under its name, and `link` can refer to its components.

        Parameters
        ----------
        path : path
            The file; missing folders are made.
        replace : bool, optional
            Whether another composite that is there is replaced. An equal one is always accepted, so that many
            processes can write a file that they share.
        recipes : mapping of str to Recipe or str, optional
            How components are laid out and compressed, by name; the one named ``"default"`` is for all others. A string
            names one of ``"lossless"`` (the default), ``"archive"``, ``"raw"`` and ``"quantized"``. Without one, what
            is copied from a file stays as it is there. Reading doesn't depend on it; nor does equality, but for
            ``"quantized"``, which rounds images of floats: the composite then has the rounded ones.

        Raises
        ------
        NoSuchComponentError
            If the composite can't have a component for which there is a recipe.
        ConflictError
            If the file exists and holds something else (a `FileExistsError`). It is untouched.
        OSError
            If it can't be written; nothing is left behind.
        """
        write_file(path, {DEFAULT: self}, replace=replace, recipes=recipes)

    def flatten(self, path: str | os.PathLike[str], *, replace: bool = False, recipes: Recipes | None = None) -> None:
        """Write a copy that needs no other file: with what the links lead to in their place.

        The copy has the same id, and its components the same digests, as this composite; each that was linked keeps its
        origin. `split` turns such files into linked ones again.

        Parameters
        ----------
        path, replace, recipes
            As for `write`.

        Raises
        ------
        BrokenLinkError
            If a component is lost. Nothing is written.
        ConflictError, OSError
            As `write` does.
        """
        from .operations.flatten import flatten

        flatten(self, path, replace=replace, recipes=recipes)

    def __reduce_ex__(self, protocol: Any) -> Any:
        # One that was opened, as where it is and what must be found there; others by value.
        return super().__reduce_ex__(protocol) if self._opening is None else (self._opening.of(self).reopened, ())

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_file": None, "_targets": []}

    def __repr__(self) -> str:
        if self._closed:
            return f"<Composite {self.location} closed>"
        ids = " ".join(f"{key}={value}" for key, value in self.data_id.items())
        names = ", ".join(
            f"{name} -> {part.link.dataset_type or part.link.definition or 'link'}"
            if isinstance(part, LinkedPart)
            else name
            for name, part in self._parts.items()
        )
        words = [self.definition, ids, f"({names})"]
        return f"<Composite {' '.join(word for word in words if word)}>"

    def _repr_html_(self) -> str:
        from .display import html

        return html(self)


def _definition(definition: str | Definition) -> Definition:
    return definition if isinstance(definition, Definition) else definitions.get_definition(definition)
