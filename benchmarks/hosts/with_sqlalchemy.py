"""SQLAlchemy: sessions of several threads on one file of SQLite."""

import os
import threading
from pathlib import Path

from sqlalchemy import Integer, create_engine, func, select
from sqlalchemy.orm import DeclarativeBase, Session, mapped_column


class Base(DeclarativeBase):
    pass


class Row(Base):
    __tablename__ = "rows"
    id = mapped_column(Integer, primary_key=True)
    value = mapped_column(Integer)


path = Path(os.environ.get("HOST_SCRATCH", "."), "rows.sqlite")
path.unlink(missing_ok=True)
engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 60})
Base.metadata.create_all(engine)


def work(number):
    for turn in range(40):
        with Session(engine) as session:
            session.add_all(Row(value=number * turn + i) for i in range(100))
            session.commit()


threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
with Session(engine) as session:
    print(session.scalar(select(func.sum(Row.value))), session.scalar(select(func.count(Row.id))))
